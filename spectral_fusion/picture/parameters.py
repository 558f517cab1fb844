"""The settings of a picture as text, and back; texts of other tools too."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from spectral_fusion.errors import InputError, shown
from spectral_fusion.picture.others import read_json_settings
from spectral_fusion.picture.samplers import translate

KEY = "parameters"
NEGATIVE = "Negative prompt: "
EXACT = ("Exact prompt", "Exact negative prompt")
"""Settings that repeat the prompts where the plain text would be read otherwise; `parse` makes them prompts again."""
LONGEST = 4 * 2**20  # characters of a text; regions may hold painted masks
MAX_SEED = 2**64 - 1
MOST = 1000  # settings
SETTINGS_LINE = re.compile(r"\s*(Steps: *\d+(\.\d+)?\s*(,|$)|Exact prompt: )")
NAME = re.compile(r"[^:,\"\n]{1,100}")
JSON_VALUE = json.JSONDecoder()
# What a setting of the format means here, or that it says nothing about how to make the picture again.
KNOWN = (
    r"Steps|Sampler|CFG scale|Seed|Size|Regions|Concepts|Exact.*|Model.*|Version|VAE.*|Created Date|App|"
    r"Lora hashes|TI hashes|TI|Civitai.*|Hashes|Face restoration model|Token merging.*|(Negative )?Template|"
    r"Wildcard prompt|User|fooocus_.*|Metadata Scheme|Performance|Fixes|Fused|Reduce|Hires upscale|Hires strength"
)
CARRIED = re.compile(KNOWN)


@dataclass(frozen=True)
class Parameters:
    """How a picture was made: its prompts, and settings by the names of the format ("Steps", "CFG scale")."""

    prompt: str
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = field(default=(), compare=False)
    """What the text of another tool says and this program cannot do, a phrase each."""

    def __str__(self) -> str:
        text = self._plain({})
        if _is_json(text) or _read(text) != (self.prompt, self.negative_prompt, dict(self.settings)):
            return self._plain(dict(zip(EXACT, (self.prompt, self.negative_prompt), strict=True)))
        return text

    def _plain(self, exact: dict[str, str]) -> str:
        negative = [NEGATIVE + self.negative_prompt] if self.negative_prompt else []
        values = {**self.settings, **exact}
        settings = ", ".join(f"{name}: {_quote(value)}" for name, value in values.items())
        return "\n".join([self.prompt, *negative, settings])

    @classmethod
    def parse(cls, text: str) -> "Parameters":
        """The inverse of `str`; also of what other tools write. Text without a line of settings is all prompt.

        Raises:
            InputError: the settings are JSON that is of no known tool, or too long.
        """
        if _is_json(text):
            prompt, negative, settings, left_out = read_json_settings(text)
            return cls(prompt, negative, *translate(*_without_odd_seed(settings, left_out)))
        if len(text) > LONGEST:
            raise InputError(f"the picture's settings are {len(text)} characters long; at most {LONGEST} are read")
        prompt, negative, settings = _read(text)
        ours = settings.get("Version", "").startswith("spectral-fusion")
        if not ours and "\r\n" in text:
            prompt, negative, settings = _read(text.replace("\r\n", "\n"))
        if not ours and "Hires upscale" in settings and "Denoising strength" in settings:
            settings["Hires strength"] = settings.pop("Denoising strength")
        odd = [] if ours else [name for name in settings if not CARRIED.fullmatch(name)]
        left_out = [f"{name}: {shown(settings[name], 60)}" for name in odd]
        return cls(prompt, negative, *translate(*_without_odd_seed(settings, left_out)))

    @property
    def weights(self) -> dict[str, float]:
        """Weight by name of the concepts that it was made with.

        Raises:
            InputError: the setting "Concepts" is there and cannot be read.
        """
        listed = self.settings.get("Concepts", "")
        try:
            pairs = (item.rpartition(":") for item in listed.split(",") if item.strip())
            return {name.strip(): _finite(weight) for name, _, weight in pairs}
        except ValueError as error:
            raise InputError(f"the picture's concepts {shown(listed)} cannot be read; choose them by hand") from error


def _without_odd_seed(settings: dict[str, str], left_out: list[str]) -> tuple[dict[str, str], list[str]]:
    """A seed that stands for none, or is larger than any here, is left out by name: the rest is still of use."""
    seed = settings.get("Seed", "0")
    if seed.removeprefix("-").isdecimal() and not (len(seed) <= 20 and 0 <= int(seed) <= MAX_SEED):
        settings = {name: value for name, value in settings.items() if name != "Seed"}
        left_out = [*left_out, f"seed {shown(seed, 20)}"]
    return settings, left_out


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not finite")
    return number


def format_weights(weights: Mapping[str, float]) -> str:
    """Concepts and weights as pictures record them, `Parameters.weights` is the inverse: `rex: 1, tom: 0.8`."""
    return ", ".join(f"{name}: {weight:g}" for name, weight in weights.items())


def _is_json(text: str) -> bool:
    return re.match(r"\s*\{\s*\"", text) is not None and text.rstrip().endswith("}")


def _read(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and settings of a text in the format."""
    lines = text.strip("\n").split("\n")
    found = [number for number, line in enumerate(lines) if SETTINGS_LINE.match(line)]
    if not found and lines[-1].lstrip().startswith("Steps: "):
        found = [len(lines) - 1]
    if not found:
        return *_prompts(lines), {}
    settings = {**dict(_split(lines[found[-1]])), **_extra(lines[found[-1] + 1 :])}
    plain = _prompts(lines[: found[-1]])
    prompt, negative = (settings.pop(name, said) for name, said in zip(EXACT, plain, strict=True))
    return prompt, negative, settings


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt of the lines above the settings."""
    first = next((number for number, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    return "\n".join(lines[:first]), "\n".join(lines[first:])[len(NEGATIVE) :]


def _split(line: str) -> Iterator[tuple[str, str]]:
    """The settings of a line, in one pass over it: `name: value, name: "a, JSON: string", name: [1, 2]`."""
    position = 0
    for _ in range(MOST):
        match = NAME.match(line, position)
        if match is None or not line.startswith(":", match.end()):
            comma = line.find(",", match.end() if match else position)
            if comma < 0:
                return
            position = comma + 1
            continue
        start = match.end() + 1
        start += len(line[start : start + 80]) - len(line[start : start + 80].lstrip())
        value, position = _value(line, start)
        yield match.group().strip(), value
        if position >= len(line):
            return


def _value(line: str, start: int) -> tuple[str, int]:
    """The value at a place, and where the next setting begins."""
    if line[start : start + 1] in ('"', "[", "{"):
        try:
            value, end = JSON_VALUE.raw_decode(line, start)
            rest = line[end : end + 80].lstrip()
            if not rest or rest.startswith(","):
                comma = line.find(",", end)
                return (value if isinstance(value, str) else line[start:end]), comma + 1 if comma >= 0 else len(line)
        except (ValueError, RecursionError):
            pass
    comma = line.find(",", start)
    end = comma if comma >= 0 else len(line)
    return line[start:end].strip(), end + 1


def _extra(lines: list[str]) -> dict[str, str]:
    """Lines that extensions write below the settings: `Template: a {red|blue} dog`, going on to the next such line."""
    found: dict[str, str] = {}
    for line in lines[:MOST]:
        name, colon, value = line.partition(": ")
        if colon and len(name) <= 40 and re.fullmatch(r"[A-Z][\w ]*", name):
            found[name] = value
        elif found:
            last = next(reversed(found))
            found[last] += f"\n{line}"
    return found


def _quote(value: str) -> str:
    """As JSON where the plain text would be read otherwise."""
    plain = value == value.strip() and not value.startswith(('"', "[", "{")) and not re.search(r"[,:\n]", value)
    return value if plain else json.dumps(value, ensure_ascii=False)
