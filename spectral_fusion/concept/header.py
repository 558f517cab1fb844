"""Values in the header of a concept file: numbers, JSON, names of layers, checked before anything is made of them."""

import re
from collections.abc import Mapping
from typing import Any

from spectral_fusion.errors import InputError, shown
from spectral_fusion.reading import parse_json

MAX_LAYERS = 2048  # twice those of the largest bases
MAX_TEXT_PARTS = 4
MAX_JSON = 2**21  # characters of a JSON value
FINGERPRINT = re.compile(r"[0-9a-f]{16}:\d{1,6}(\.\d{1,6})?(e[-+]?\d{1,2})?")
LAYER = re.compile(r"[a-z]\w{0,31}(\.[\w-]{1,64}){1,24}")


def json_object(text: str, key: str, source: str) -> dict[str, Any]:
    """The JSON object that the header has under `key`; raises InputError, which names the file `source`."""
    if len(text) > MAX_JSON:
        raise InputError(f"{source} has malformed metadata ({key} is {len(text)} characters long); get it again")
    value = parse_json(text, f"{source} has malformed metadata: {key}")
    if not isinstance(value, dict):
        raise InputError(f"{source} has malformed metadata ({key} is no JSON object); save the concept again")
    return value


def count(text: str) -> int:
    """A whole number of at most 20 digits; raises ValueError."""
    if not re.fullmatch(r"-?[0-9]{1,20}", text):
        raise ValueError(f"{shown(text)} is no whole number")
    return int(text)


def text_parts(text: str) -> tuple[str, ...]:
    """The names of the text encoders that know the trigger; raises ValueError."""
    parts = parse_json(text, "text_parts") if len(text) < 1000 else None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts) or len(parts) > MAX_TEXT_PARTS:
        raise ValueError(f"text_parts is no list of up to {MAX_TEXT_PARTS} names")
    return tuple(parts)


class CheckedLayers(dict[str, str]):
    """Layer -> fingerprint, names and forms checked, for the many concepts of a library that adapt the same layers.

    kernels: layer -> kernel size, for the layers that are convolutions; checked too.
    """

    kernels: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, name: str, fingerprints: Mapping[str, str], kernels: Mapping[str, tuple[int, int]]) -> "CheckedLayers":
        """Raises InputError, as `check_layer_names`."""
        check_layer_names(name, fingerprints, kernels)
        layers = cls(fingerprints)
        layers.kernels = dict(kernels)
        return layers


def check_layer_names(name: str, fingerprints: Mapping[str, str], kernels: Mapping[str, tuple[int, int]]) -> None:
    """Raises InputError: concept `name` has no layer, too many, or a malformed name, fingerprint or kernel."""
    if not fingerprints or len(fingerprints) > MAX_LAYERS:
        raise InputError(
            f"concept {name!r} adapts {len(fingerprints)} layers; it must be 1 to {MAX_LAYERS}. Train it again, or get "
            "the file again"
        )
    for layer, fingerprint in fingerprints.items():
        if not isinstance(layer, str) or not LAYER.fullmatch(layer):
            raise InputError(f"concept {name!r} adapts {shown(layer)}, which is no name of a layer")
        if not isinstance(fingerprint, str) or not FINGERPRINT.fullmatch(fingerprint):
            malformed = f"the malformed fingerprint {shown(fingerprint)} of {layer!r}"
            raise InputError(f"concept {name!r} has {malformed}; get the file again")
    for layer, kernel in kernels.items():
        if layer not in fingerprints or not all(type(side) is int for side in kernel):
            raise InputError(f"concept {name!r} has a kernel of {shown(kernel)} for {shown(layer)}; save it again")
