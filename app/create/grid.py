"""Grids: one or two settings that vary over the pictures of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.generation import GenerateConfig

LARGEST_FACTOR = 10
OF_CONCEPT = "weight of "
NUMBERS: dict[str, tuple[str, type]] = {  # how the page calls it -> the field of GenerateConfig, and its kind
    "steps": ("num_inference_steps", int),
    "guidance": ("guidance_scale", float),
    "seed": ("seed", int),
}
SETTINGS = ("weights", *NUMBERS, "sampler")


@dataclass(frozen=True)
class Axis:
    """One setting and the values that it takes.

    Attributes:
        setting: one of `SETTINGS`, where `weights` multiplies all weights of concepts; or `weight of rex`.
    """

    setting: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, setting: str, text: str, samplers: Sequence[str] = ()) -> Axis:
        """From what a visitor typed: values with commas between them.

        Raises:
            InputError: no such setting, or a value that it cannot take.
        """
        words = [word.strip() for word in text.split(",") if word.strip()]
        if setting == "weights":
            words = text.replace(",", " ").split()
        if not words:
            raise InputError(f"the grid has no values for {setting}; write them like {example(setting)}")
        if setting == "sampler":
            if unknown := [word for word in words if word not in samplers]:
                raise InputError(f"grid: there is no sampler {unknown[0][:40]!r}; use some of {', '.join(samplers)}")
            return cls(setting, tuple(words))
        kind: type = float
        if setting in NUMBERS:
            kind = NUMBERS[setting][1]
        elif setting != "weights" and not setting.startswith(OF_CONCEPT):
            raise InputError(f"grid: there is no setting {setting[:40]!r}; use one of {', '.join(SETTINGS)}")
        try:
            values = tuple(kind(word) for word in words)
        except ValueError as error:
            raise InputError(f"grid values {text[:40]!r} are no numbers; write them like {example(setting)}") from error
        weighs = setting == "weights" or setting.startswith(OF_CONCEPT)
        if weighs and not all(abs(value) <= LARGEST_FACTOR for value in values):
            raise InputError(f"grid values {text[:40]!r} go beyond {LARGEST_FACTOR}; write them like 0, 0.5, 1")
        return cls(setting, values)

    @property
    def text(self) -> str:
        """The values as one may type them."""
        return ", ".join(map(plain, self.values))

    def label(self, value: Any) -> str:
        """How a row or column of the sheet is called."""
        if self.setting == "weights":
            return f"x {plain(value)}"
        return f"{self.setting.removeprefix(OF_CONCEPT)} {plain(value)}" if self.setting != "sampler" else str(value)

    def apply(
        self, value: Any, config: GenerateConfig, weights: Mapping[str, float]
    ) -> tuple[GenerateConfig, dict[str, float]]:
        """The settings with this value. Raises InputError where a picture cannot be made with it."""
        if self.setting == "weights":
            return config, {name: weight * value for name, weight in weights.items()}
        if self.setting.startswith(OF_CONCEPT):
            return config, {**weights, self.setting.removeprefix(OF_CONCEPT): value}
        field = NUMBERS[self.setting][0] if self.setting in NUMBERS else "sampler"
        return replace(config, **{field: value}), dict(weights)


def check_axes(axes: Sequence[Axis], weights: Mapping[str, float], pictures: int) -> None:
    """Raises InputError: a grid that cannot be drawn."""
    if len(axes) > 2:
        raise InputError("a grid varies one or two settings; leave the third out")
    if len({axis.setting for axis in axes}) < len(axes):
        raise InputError(f"the grid varies {axes[0].setting} twice; choose another setting")
    if len(axes) == 2 and pictures > 1:
        raise InputError(f"a grid of two settings has one picture in each cell, not {pictures}; set Pictures to 1")
    if len(axes) == 1 and axes[0].setting == "seed" and pictures > 1:
        raise InputError("a grid over seeds has one picture for each; set Pictures to 1")
    for axis in axes:
        name = axis.setting.removeprefix(OF_CONCEPT)
        if (axis.setting == "weights" and not weights) or (axis.setting != name and name not in weights):
            raise InputError("the grid varies weights of concepts; use one in the prompt")


def example(setting: str) -> str:
    """Values that one may type."""
    numbers = {"steps": "10, 20, 40", "guidance": "3, 5, 7.5", "seed": "1, 2, 3", "sampler": "Euler, DPM++ 2M"}
    return numbers.get(setting, "0, 0.5, 1")


def plain(value: Any) -> str:
    """A value as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_axes(axes: Sequence[Axis]) -> str:
    """As pictures record them: `weights: 0, 0.5, 1 | steps: 10, 20`; `read_axes` is the inverse."""
    return " | ".join(f"{axis.setting}: {axis.text}" for axis in axes)


def read_axes(text: str) -> tuple[tuple[str, str], ...]:
    """Setting and values of each axis; what cannot be read is left out."""
    parts = (part.partition(": ") for part in text.split(" | "))
    return tuple((setting.strip(), values.strip()) for setting, _, values in parts if setting and values.strip())
