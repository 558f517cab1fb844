"""What a concept file says about itself: strings in the safetensors header, typed here."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, get_args

from spectral_fusion.errors import InputError
from spectral_fusion.pipeline.tokens import check_trigger
from spectral_fusion.spectral import Band, Mode

FORMAT_VERSION = "2"
READABLE = ("1", "2")  # format 1 has no side: its bands count from the top
OURS = "spectral_fusion."
NAME = re.compile(r"[^\W_][\w-]{0,63}")
RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)  # not usable as file names on Windows
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
    base_name: str = ""
    """How the user called that base."""
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
        for text in (self.class_word, self.base, self.base_name):
            if not isinstance(text, str) or not text.isprintable():
                raise InputError(f"concept {self.name!r} has the text {text!r}; write it in one line, without escapes")
        if not self.band.depth <= self.directions <= MAX_DIRECTIONS:
            raise InputError(
                f"{self.band} needs {self.band.depth} directions; the smallest layer of concept {self.name!r} has "
                f"{self.directions}. Lower the rank or the band"
            )
        if self.mode not in get_args(Mode):
            raise InputError(
                f"concept {self.name!r} has unknown mode {self.mode!r}; known: {', '.join(get_args(Mode))}"
            )
        if not is_number(self.alpha):
            raise InputError(f"concept {self.name!r} has alpha {self.alpha!r}; it must be a finite number")

    @property
    def span(self) -> range:
        """The band's directions in the smallest adapted layer."""
        return self.band.within(self.directions)

    @property
    def capacity(self) -> int:
        """How many bands of this rank the base has room for."""
        return self.directions // self.band.rank

    def may_share_band(self, other: "ConceptInfo") -> bool:
        """Whether the bands of two concepts of one base can meet in a layer that both adapt.

        Such a layer has at least as many directions as the smallest layer of either concept.
        """
        return self.band.overlaps(other.band, max(self.directions, other.directions))


def is_number(value: object) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_name(name: str) -> str:
    """Return the name if it can be a folder and an adapter.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or RESERVED.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a concept: use up to 64 letters, digits, - or _, a letter or digit first"
        )
    return name


def to_metadata(info: ConceptInfo) -> dict[str, str]:
    """The header of a concept file: `spectral_fusion.*`, and the shared `modelspec.*` keys that other tools show."""
    ours = {
        "format_version": FORMAT_VERSION,
        "name": info.name,
        "trigger": info.trigger,
        "class_word": info.class_word,
        "band": str(info.band.index),
        "side": info.band.side,
        "rank": str(info.band.rank),
        "mode": info.mode,
        "alpha": repr(float(info.alpha)),
        "base": info.base,
        "base_name": info.base_name,
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
            f"{source} has format version {found}, this program reads up to {FORMAT_VERSION}; update spectral-fusion"
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
            band=Band(int(ours["band"]), int(ours["rank"]), _side(found, ours)),
            mode=ours["mode"],  # type: ignore[arg-type]  # checked by ConceptInfo
            alpha=float(ours["alpha"]),
            base=ours["base"],
            base_name=ours["base_name"],
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


def _side(version: str, ours: Mapping[str, str]) -> Any:
    return "top" if version == "1" else ours["side"]


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}:[-+.e0-9]+", value) is not None
