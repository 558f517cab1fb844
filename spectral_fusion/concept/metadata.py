"""What a concept file says about itself: strings in the safetensors header, typed here."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, get_args

from spectral_fusion.concept.names import check_name, check_trigger
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band, Mode

FORMAT_VERSION = "2"  # what is written
READABLE = ("1", "2")
FAMILY_OF_FORMAT_1 = "sd"
OURS = "spectral_fusion."
MAX_DIRECTIONS = 2**17  # more than any layer has; a damaged file must not make a map of bands endless
VERSIONED = ("spectral-fusion", "torch", "diffusers", "transformers", "peft")


@dataclass(frozen=True, eq=False, kw_only=True)
class ConceptInfo:
    """All that a concept file says in its header; compared by identity.

    Raises:
        InputError: a field is malformed.
    """

    name: str
    trigger: str
    """What stands for the subject in a prompt: `<rex>`."""
    class_word: str
    """What kind of thing it is: `dog`."""
    band: Band
    mode: Mode
    alpha: float = 1.0
    """What the delta is multiplied by, at any weight."""
    base: str
    """Fingerprint of the base that it was trained on."""
    family: str = FAMILY_OF_FORMAT_1
    """The family of that base: `sd` is Stable Diffusion 1.x and 2.x."""
    base_name: str = ""
    """How the user called that base."""
    text_parts: tuple[str, ...] = ("text_encoder",)
    """The text encoders of the base that have learned the trigger."""
    directions: int
    """Singular directions of the smallest adapted layer: bands end there."""
    fingerprints: dict[str, str] = field(repr=False)
    """Layer -> fingerprint of the base's weight."""
    kernels: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    """Layer -> kernel size, for the layers that are convolutions."""
    training: dict[str, Any] = field(default_factory=dict, repr=False)
    """Settings and figures of the training, as plain JSON."""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_trigger(self.trigger)
        for text in (self.class_word, self.base, self.family, self.base_name):
            if not isinstance(text, str) or not text.isprintable():
                raise InputError(f"concept {self.name!r} has the text {text!r}; write it in one line, without escapes")
        if not self.band.hi <= self.directions <= MAX_DIRECTIONS:
            raise InputError(
                f"band {self.band.index} at rank {self.band.rank} needs {self.band.hi} directions; the smallest layer "
                f"of concept {self.name!r} has {self.directions}. Lower the rank or the band"
            )
        if self.mode not in get_args(Mode):
            raise InputError(
                f"concept {self.name!r} has unknown mode {self.mode!r}; known: {', '.join(get_args(Mode))}"
            )
        if not is_number(self.alpha):
            raise InputError(f"concept {self.name!r} has alpha {self.alpha!r}; it must be a finite number")

    @property
    def capacity(self) -> int:
        """How many bands of this rank the base has room for."""
        return self.directions // self.band.rank


def is_number(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_weight(info: ConceptInfo, weight: float) -> float:
    """Return the weight of a concept, as a float; raises InputError where it is no finite number."""
    if not is_number(weight):
        raise InputError(f"weight {weight!r} of concept {info.name!r} is not a number; give one such as 0.8")
    return float(weight)


def to_metadata(info: ConceptInfo) -> dict[str, str]:
    """The header of a concept file: `spectral_fusion.*`, and the shared `modelspec.*` keys that other tools show."""
    ours = {
        "format_version": FORMAT_VERSION,
        "name": info.name,
        "trigger": info.trigger,
        "class_word": info.class_word,
        "band": str(info.band.index),
        "rank": str(info.band.rank),
        "mode": info.mode,
        "alpha": repr(float(info.alpha)),
        "base": info.base,
        "family": info.family,
        "base_name": info.base_name,
        "text_parts": json.dumps(info.text_parts),
        "directions": str(info.directions),
        "fingerprints": json.dumps(info.fingerprints, sort_keys=True),
        "kernels": json.dumps(info.kernels, sort_keys=True),
        "training": json.dumps(info.training, sort_keys=True),
        "versions": library_versions(),
    }
    shared = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/spectral-adapter",
        "modelspec.title": info.name,
        "modelspec.trigger_phrase": info.trigger,
        "modelspec.tags": info.class_word,
    }
    return {OURS + key: value for key, value in ours.items()} | shared


def from_metadata(metadata: Mapping[str, str], source: str) -> ConceptInfo:
    """Read a header back.

    Args:
        source: how errors call the file.

    Raises:
        InputError: another format version; a field is missing, malformed or out of range.
    """
    found = metadata.get(OURS + "format_version")
    if found not in READABLE:
        raise InputError(
            f"{source} has format version {found}, this program reads {' and '.join(READABLE)}; update spectral-fusion"
        )
    try:
        ours = {key.removeprefix(OURS): value for key, value in metadata.items() if key.startswith(OURS)}
        fingerprints, training = json.loads(ours["fingerprints"]), json.loads(ours["training"])
        if not isinstance(training, dict) or not all(_is_fingerprint(value) for value in fingerprints.values()):
            raise ValueError("fingerprints or training settings are malformed")
        return ConceptInfo(
            name=ours["name"],
            trigger=ours["trigger"],
            class_word=ours["class_word"],
            band=Band(int(ours["band"]), int(ours["rank"])),
            mode=ours["mode"],  # type: ignore[arg-type]  # checked by ConceptInfo
            alpha=float(ours["alpha"]),
            base=ours["base"],
            family=FAMILY_OF_FORMAT_1 if found == "1" else ours["family"],
            base_name=ours["base_name"],
            text_parts=("text_encoder",) if found == "1" else _text_parts(ours["text_parts"]),
            directions=int(ours["directions"]),
            fingerprints=fingerprints,
            kernels={
                layer: (int(height), int(width)) for layer, (height, width) in json.loads(ours["kernels"]).items()
            },
            training=training,
        )
    except KeyError as error:
        raise InputError(f"{source} lacks the metadata {OURS}{error.args[0]}; save the concept again") from error
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{source} has malformed metadata ({error}); save the concept again") from error


def library_versions() -> str:
    """The versions that wrote a file: `spectral-fusion 0.1.0, torch 2.13.0, ...`."""
    return ", ".join(f"{name} {version(name)}" for name in VERSIONED)


def _text_parts(value: str) -> tuple[str, ...]:
    parts = json.loads(value)
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError("text_parts is no list of names")
    return tuple(parts)


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}:[-+.e0-9]+", value) is not None
