"""What a concept file says about itself: strings in the safetensors header, typed here."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from spectral_fusion.concept.header import CheckedLayers, check_layer_names, count, json_object, text_parts
from spectral_fusion.errors import InputError, shown
from spectral_fusion.names import check_name, check_trigger
from spectral_fusion.spectral import Band, Mode

FORMAT_VERSION = "2"  # what is written
READABLE = ("1", "2")  # format 1 has no side, its bands count from the top, and no family
FAMILY_OF_FORMAT_1 = "sd"
OURS = "spectral_fusion."
ARCHITECTURES = {  # as modelspec calls families
    "sd": "stable-diffusion-v1",
    "sdxl": "stable-diffusion-xl-v1-base",
    "sd3": "stable-diffusion-3",
    "flux": "flux-1-dev",
    "flux2-klein": "flux-2-klein",
    "z-image": "z-image",
}
WIDTH_OF_SD2 = 1024
MAX_DIRECTIONS = 2**14  # as many as the widest layers have; a damaged file must not make a map of bands endless
MAX_ALPHA = 1e6
MAX_TEXT = 200  # characters of the class word and of the base's fingerprint
MAX_BASE_NAME = 1000  # characters; it may be a path
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
        object.__setattr__(self, "name", check_name(self.name))
        object.__setattr__(self, "trigger", check_trigger(self.trigger))
        for text in (self.class_word, self.base, self.family, self.base_name, *self.text_parts):
            longest = MAX_BASE_NAME if text is self.base_name else MAX_TEXT
            if not isinstance(text, str) or not text.isprintable() or len(text) > longest:
                raise InputError(
                    f"concept {self.name!r} has the text {shown(text)}; write it in one line, without escapes, at most "
                    f"{longest} characters"
                )
        if not is_count(self.directions) or not self.band.depth <= self.directions <= MAX_DIRECTIONS:
            raise InputError(
                f"{self.band} needs {self.band.depth} directions; the smallest layer "
                f"of concept {self.name!r} has {shown(self.directions)}, and no layer more than {MAX_DIRECTIONS}. "
                "Lower the rank or the band"
            )
        if self.mode not in get_args(Mode):
            raise InputError(
                f"concept {self.name!r} has unknown mode {shown(self.mode)}; known: {', '.join(get_args(Mode))}"
            )
        if not is_number(self.alpha) or abs(self.alpha) > MAX_ALPHA:
            raise InputError(
                f"concept {self.name!r} has alpha {shown(self.alpha)}; it must be a finite number up to {MAX_ALPHA:g}"
            )
        layers = self.fingerprints
        if not (isinstance(layers, CheckedLayers) and layers.kernels is self.kernels):
            check_layer_names(self.name, layers, self.kernels)

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


def is_count(value: object) -> bool:
    """Whether this is a whole number from one up."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def check_weight(info: ConceptInfo, weight: float) -> float:
    """Return the weight of a concept, as a float; raises InputError where it is no finite number."""
    if not is_number(weight):
        raise InputError(f"weight {weight!r} of concept {info.name!r} is not a number; give one such as 0.8")
    return float(weight)


def architecture(family: str, widths: Iterable[int]) -> str:
    """What modelspec calls a family; of Stable Diffusion, 2.x has the wider text encoder."""
    if family == "sd" and WIDTH_OF_SD2 in widths:
        return "stable-diffusion-v2"
    return ARCHITECTURES.get(family, family)


def to_metadata(info: ConceptInfo, widths: Iterable[int]) -> dict[str, str]:
    """The header of a concept file: `spectral_fusion.*`, and the shared `modelspec.*` keys that other tools show.

    Args:
        widths: those of the token embeddings, one of each text encoder.
    """
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
        "modelspec.architecture": f"{architecture(info.family, widths)}/spectral-adapter",
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
            f"{source} has format version {str(found)[:20]}, this program reads {' and '.join(READABLE)}; "
            "update spectral-fusion"
        )
    ours = {key.removeprefix(OURS): value for key, value in metadata.items() if key.startswith(OURS)}
    try:
        fingerprints, kernels, training = [
            json_object(ours[key], OURS + key, source) for key in ("fingerprints", "kernels", "training")
        ]
        return ConceptInfo(
            name=ours["name"],
            trigger=ours["trigger"],
            class_word=ours["class_word"],
            band=Band(count(ours["band"]), count(ours["rank"]), _side(found, ours)),
            mode=ours["mode"],  # type: ignore[arg-type]  # checked by ConceptInfo
            alpha=float(ours["alpha"]),
            base=ours["base"],
            family=FAMILY_OF_FORMAT_1 if found == "1" else ours["family"],
            base_name=ours["base_name"],
            text_parts=("text_encoder",) if found == "1" else text_parts(ours["text_parts"]),
            directions=count(ours["directions"]),
            fingerprints=fingerprints,
            kernels={layer: (height, width) for layer, (height, width) in kernels.items()},
            training=training,
        )
    except KeyError as error:
        raise InputError(f"{source} lacks the metadata {OURS}{error.args[0]}; save the concept again") from error
    except InputError as error:
        raise error if str(error).startswith(source) else InputError(f"{source}: {error}") from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"{source} has malformed metadata ({error}); save the concept again") from error


def library_versions() -> str:
    """The versions that wrote a file: `spectral-fusion 0.1.0, torch 2.13.0, ...`."""
    return ", ".join(f"{name} {_version(name)}" for name in VERSIONED)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a folder of sources
        return "unknown"


def _side(version: str | None, ours: Mapping[str, str]) -> Any:
    return "top" if version == "1" else ours["side"]
