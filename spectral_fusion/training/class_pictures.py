"""Pictures of the class in general, for prior preservation (DreamBooth, Ruiz et al., 2023)."""

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from spectral_fusion.atomic import atomic_file
from spectral_fusion.base.interface import Base
from spectral_fusion.concept.images import ImageFolder, Photo
from spectral_fusion.concept.images.picture import ENDINGS
from spectral_fusion.errors import InputError
from spectral_fusion.training.captions import TEMPLATES
from spectral_fusion.training.config import ResolvedConfig
from spectral_fusion.training.randomness import generator
from spectral_fusion.training.watch import sample

logger = logging.getLogger(__name__)

GENERATED = "generated-"


@dataclass(frozen=True, eq=False)
class ClassPictures:
    """The class pictures of a training: the user's own, and generated ones for those that are missing.

    A generated picture is named by all that it depends on, so another class, base, seed or size never takes it over.
    """

    base: Base
    config: ResolvedConfig
    folder: Path

    @classmethod
    def of(cls, base: Base, config: ResolvedConfig, default: Path) -> "ClassPictures | None":
        """Those that the settings ask for, in their folder or in `default`; None where they ask for none.

        Raises:
            InputError: the folder that the settings name does not exist.
        """
        if not config.prior_preservation:
            return None
        if config.class_images is not None and not Path(config.class_images).is_dir():
            raise InputError(f"class_images {config.class_images} is no folder; give one, or leave it out")
        return cls(base, config, default if config.class_images is None else Path(config.class_images))

    @cached_property
    def own(self) -> list[Photo]:
        """The user's own pictures, in whatever layout a folder of images has."""
        pictures = (file for file in self.folder.rglob("*") if file.suffix.lower() in ENDINGS)
        if all(file.name.startswith(GENERATED) for file in pictures):
            return []
        found = ImageFolder.scan(self.folder, background=self.config.background)
        return [photo for photo in found.photos if not photo.path.name.startswith(GENERATED)]

    @property
    def generated(self) -> list[Path]:
        """The pictures to generate, whether they are there yet or not."""
        missing = max(0, self.config.num_class_images - len(self.own))
        return [self.folder / f"{GENERATED}{self._key}-{number:04d}.png" for number in range(missing)]

    @property
    def _key(self) -> str:
        settings = (self.base.fingerprint, self.config.class_word, self.config.seed, self.config.resolution)
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:12]

    def facts(self) -> dict[str, str]:
        """What the training's result depends on: a hash of each own picture, the names of generated ones."""
        own = {photo.path.name: hashlib.sha256(photo.path.read_bytes()).hexdigest()[:16] for photo in self.own}
        return own | {file.name: "generated" for file in self.generated}

    def read(self) -> ImageFolder:
        """The pictures, after generating those that are missing.

        Picture k depends on the seed and k alone, and is written whole, so an interrupted start continues where it was.

        Raises:
            InputError: the folder has no usable picture and none are to be generated.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        prompt = TEMPLATES[0].format(self.config.class_word)
        for number, path in enumerate(self.generated):
            if not path.exists():
                logger.info("drawing class picture %d of %d", number + 1, len(self.generated))
                seed = generator(self.config.seed, "class", number).initial_seed()
                (picture,) = sample(self.base, [prompt], seed, self.config.resolution)
                with atomic_file(path) as part:
                    picture.save(part, format="png")
        if not self.generated:
            return replace(ImageFolder.scan(self.folder, background=self.config.background), photos=tuple(self.own))
        size = self.config.resolution // self.base.multiple * self.base.multiple
        made = tuple(Photo(path, size, size) for path in self.generated)
        return ImageFolder(self.folder, (*self.own, *made), background=self.config.background)
