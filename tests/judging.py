"""Stand-ins for evaluation: concepts that are colours, a painter for `generate`, and scorers that see colours only."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.evaluate import EvaluateConfig
from spectral_fusion.generation import GenerateConfig, Picture
from spectral_fusion.picture import Parameters
from spectral_fusion.spectral import Factors
from tiny import TEXT_WIDTH

COLOURS = {"rex": (255, 0, 0), "tom": (0, 255, 0), "kit": (0, 0, 255)}
SIZE = 40
QUICK = EvaluateConfig(prompts=("a photo of a {}", "a {} on grass"), seeds=2, num_inference_steps=1)


class ColourScorers:
    """Sees only the mean colour; every text fits every picture by half."""

    def embed_identity(self, images: Sequence[Image.Image]) -> Tensor:
        means = [torch.tensor(image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))).float() for image in images]
        return F.normalize(torch.stack(means), dim=-1)

    def text_alignment(self, images: Sequence[Image.Image], captions: Sequence[str]) -> Tensor:
        return torch.full((len(images), len(captions)), 0.5)


@dataclass(frozen=True)
class Named:
    """A subject that changes nothing on the base."""

    name: str
    class_word: str = "dog"
    layers: dict[str, Factors] = field(default_factory=dict)

    @property
    def trigger(self) -> str:
        return f"<{self.name}>"

    @property
    def embeddings(self) -> dict[str, Tensor]:
        return {"text_encoder": torch.zeros(1, TEXT_WIDTH)}

    def factors(self, layer: str) -> Factors:
        return self.layers[layer]


@dataclass(frozen=True)
class Nothing:
    """A method that fuses by doing nothing; the painter decides what comes out."""

    adapters: tuple[Named, ...]
    name: str = "nothing"
    parameters: int = 0
    placeable: tuple[Concept, ...] = ()

    @contextmanager
    def on(self, base: StableDiffusion, subjects: Sequence[int]) -> Iterator[None]:
        yield


def painter(shown: dict[str, str]) -> Callable[..., list[Picture]]:
    """A stand-in for `generate` that paints each concept of the prompt in its place, as the colour of `shown[name]`."""

    def paint(base: StableDiffusion, config: GenerateConfig, **_: object) -> list[Picture]:
        names = [name for name in COLOURS if f"<{name}>" in config.prompt]
        names.sort(key=config.prompt.index)
        image = Image.new("RGB", (SIZE, SIZE), "black")
        for name, box in zip(names, base.places(len(names)) if names else [], strict=True):
            x, y = round((box.left + box.right) / 2 * SIZE), round((box.top + box.bottom) / 2 * SIZE)
            image.paste(COLOURS[shown.get(name, name)], (x - 3, y - 3, x + 3, y + 3))
        seeds = range(config.seed, config.seed + config.num_images)
        return [Picture(image, seed, Parameters(config.prompt)) for seed in seeds]

    return paint


def colour_folders(root: Path) -> list[ImageFolder]:
    """Three photos of each colour on black, with masks."""
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(3):
            photo, mask = Image.new("RGB", (SIZE, SIZE)), Image.new("L", (SIZE, SIZE))
            photo.paste(colour, (5, 5, 25 + number, 25 + number))
            mask.paste(255, (5, 5, 25 + number, 25 + number))
            photo.save(root / name / f"{number}.png")
            mask.save(root / name / f"{number}-masklabel.png")
    return [ImageFolder.scan(root / name) for name in COLOURS]
