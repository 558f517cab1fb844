"""Folders in diffusers' format that are damaged, or not what they say: one line, whatever the libraries raise."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from spectral_fusion.errors import InputError, shown
from spectral_fusion.reading import read_json

LARGEST_CONFIG = 2**20  # bytes


@contextmanager
def loading(what: str, folder: str, settings: str) -> Iterator[None]:
    """Within the block, all that diffusers, transformers and tokenizers raise is one line that names the folder.

    They were not made for settings of the wrong kind: a list where a name is expected raises nearly anything, and
    tokenizers a bare `Exception`. Too little memory passes.

    Args:
        what: as messages call it: "base".
        folder: or a hub id.
        settings: the file that makes a folder one of its kind.
    """
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(unreadable(what, folder, settings, error)) from error


def unreadable(what: str, folder: str, settings: str, error: Exception) -> str:
    """One line on why a folder or repository could not be loaded, and what to do; arguments as of `loading`."""
    path = Path(folder)
    if not path.is_dir():
        return f"{what} {folder} is not in the hub's cache, and not to be had; check the id, network and HF_HUB_OFFLINE"
    if not (path / settings).is_file():
        return f"{what} {folder} is no diffusers folder ({settings} is missing); give the folder that holds it"
    pickles = (file for pattern in ("*.bin", "*/*.bin") for file in path.glob(pattern))
    pickled = [file.name for file in pickles if not list(file.parent.glob("*.safetensors"))]
    if pickled:
        return (
            f"{what} {folder} holds pickled weights ({pickled[0]}), which are never opened; get its .safetensors files"
        )
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"{what} {folder} cannot be loaded ({said}); get it again"


def read_settings(file: Path) -> dict[str, Any]:
    """The settings in a JSON file of such a folder. Raises InputError where it holds anything but an object."""
    found = read_json(file, largest=LARGEST_CONFIG)
    if not isinstance(found, dict):
        raise InputError(f"{file} holds {shown(found, 40)} and no settings; get the folder again")
    return found


def class_name(config: Any, what: str, folder: str) -> str:
    """Which class a folder says that it is of. Raises InputError where it says none."""
    found = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(found, str):
        raise InputError(
            f"{what} {folder} does not say what it is (its _class_name is {shown(found, 40)}); get it again"
        )
    return found
