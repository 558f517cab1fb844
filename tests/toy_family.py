"""A family of bases in one file: a denoiser of two convolutions that reads one word, on pictures as they are."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin, SchedulerMixin
from diffusers.loaders import PeftAdapterMixin
from PIL import Image
from torch import Tensor, nn

from spectral_fusion.base.condition import Condition, Posterior
from spectral_fusion.base.interface import Base

WIDTH = 32


class ToyDenoiser(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Noisy picture and text -> velocity, by a convolution in and one out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in, self.conv_out = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 3, 3, padding=1)
        self.text = nn.Linear(WIDTH, WIDTH)

    def forward(self, noisy: Tensor, text: Tensor) -> Tensor:
        return self.conv_out(torch.tanh(self.conv_in(noisy) + self.text(text)[:, :, None, None]))


class Toy(Base):
    """16 px pictures; a straight flow from picture to noise; words are numbers, so no trigger can be learned."""

    family = "toy"
    size = multiple = training_multiple = 16
    parts: ClassVar[dict[str, nn.Module]] = {}

    def __init__(self, denoiser: ToyDenoiser) -> None:
        super().__init__(SimpleNamespace(name_or_path="toy", device=torch.device("cpu")))  # type: ignore[arg-type]
        self.parts = {"denoiser": denoiser}

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 3, height, width

    def encode(self, pixels: Tensor) -> Posterior:
        return Posterior(pixels, torch.zeros_like(pixels))

    def decode(self, latents: Tensor) -> list[Image.Image]:
        bytes_ = ((latents.clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(picture) for picture in bytes_]

    def condition(self, prompts: Sequence[str], *, weighted: bool = False) -> Condition:
        generators = [torch.Generator().manual_seed(sum(map(ord, prompt))) for prompt in prompts]
        return Condition(torch.stack([torch.randn(WIDTH, generator=generator) for generator in generators]))

    def draw_time(self, source: torch.Generator) -> float:
        return float(torch.rand((), generator=source)) * 1000

    def even_times(self, count: int) -> list[float]:
        return [1000 * (k + 0.5) / count for k in range(count)]

    def problem(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        share = (times / 1000).view(-1, 1, 1, 1)
        return (1 - share) * latents + share * noise, noise - latents

    def predict(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return self.parts["denoiser"](noisy, condition.embeds)

    def scheduler(self, sampler: str, shape: tuple[int, int], steps: int) -> SchedulerMixin:
        return FlowMatchEulerDiscreteScheduler()


def toy_base(**_: Any) -> Toy:
    """The same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Toy(ToyDenoiser().eval())
