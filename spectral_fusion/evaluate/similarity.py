"""Identity scores from embeddings: cosines with a concept's own photos, and whose photo is nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from spectral_fusion.base.regions import Box
from spectral_fusion.concept.images import ImageFolder, Photo
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.boxes import crop_square
from spectral_fusion.evaluate.scorers import Scorers


@dataclass(frozen=True)
class Photos:
    """The photos of all concepts, and what the identity scorer sees in them.

    pictures: whole; embeddings: (photos, width), unit length, of what the masks show; owners: (photos,) index of each
    photo's concept.
    """

    pictures: tuple[Image.Image, ...]
    embeddings: Tensor
    owners: Tensor

    @classmethod
    def of(cls, folders: Sequence[ImageFolder], scorers: Scorers) -> Photos:
        """Read, crop to the mask where there is one, and embed the photos of each concept, in order.

        Photos in which the scorer sees nobody, such as a face's back, are left out.

        Raises:
            InputError: that is so in all photos of a concept.
        """
        photos = [(folder, photo) for folder in folders for photo in folder.photos]
        owners = torch.tensor([number for number, folder in enumerate(folders) for _ in folder.photos])
        embeddings = scorers.embed_identity([subject(folder, photo) for folder, photo in photos])
        seen = embeddings.any(1)
        if lost := [number for number in range(len(folders)) if not seen[owners == number].any()]:
            raise InputError(f"nobody is seen in any photo of {folders[lost[0]].path}; give others, or another judge")
        pictures = tuple(
            folder.read(photo) for (folder, photo), kept in zip(photos, seen.tolist(), strict=True) if kept
        )
        return cls(pictures, embeddings[seen], owners[seen])

    @property
    def concepts(self) -> int:
        """How many concepts have photos here."""
        return int(self.owners.max()) + 1

    def of_concept(self, concept: int) -> tuple[Image.Image, ...]:
        """The photos of one concept."""
        owners = self.owners.tolist()
        return tuple(photo for photo, owner in zip(self.pictures, owners, strict=True) if owner == concept)

    def similarity(self, seen: Tensor) -> Tensor:
        """(n, concepts): the mean cosine of each picture with each concept's photos, from embeddings (n, width)."""
        cosines = seen @ self.embeddings.T
        return torch.stack([cosines[:, self.owners == concept].mean(1) for concept in range(self.concepts)], dim=1)

    def nearest(self, seen: Tensor) -> Tensor:
        """(n,): the concept that owns the single photo nearest to each picture, from embeddings (n, width).

        Zeros, for subjects that were not found, are nearest to nobody: the number of concepts.
        """
        owners = self.owners[(seen @ self.embeddings.T).argmax(1)]
        return owners.masked_fill(~seen.any(1), self.concepts)

    def own_similarity(self) -> list[float]:
        """For each concept the mean cosine of its photos with one another: what a perfect generator would reach."""
        means = []
        for concept in range(self.concepts):
            own = self.embeddings[self.owners == concept]
            count = len(own)
            cosines = own @ own.T
            means.append(float((cosines.sum() - cosines.trace()) / (count * (count - 1))) if count > 1 else 1.0)
        return means


def subject(folder: ImageFolder, photo: Photo) -> Image.Image:
    """One photo, cropped to what its mask shows; whole where it has no mask or an empty one."""
    picture, mask = folder.read(photo), folder.read_mask(photo)
    bounds = mask.point(lambda level: 255 * (level > 127)).getbbox() if mask else None
    if bounds is None:
        return picture
    left, top, right, bottom = bounds
    box = Box(left / picture.width, top / picture.height, right / picture.width, bottom / picture.height)
    return crop_square(picture, box)


def confusion(wanted: Tensor, nearest: Tensor, concepts: int) -> list[list[int]]:
    """Counts [wanted concept][concept whose photo is nearest], from (n,) indices each.

    A last column counts the wanted that were not found, where there are any.
    """
    counts = torch.zeros(concepts, concepts + 1, dtype=torch.long)
    counts.index_put_((wanted, nearest), torch.ones_like(wanted), accumulate=True)
    return (counts if counts[:, -1].any() else counts[:, :-1]).tolist()
