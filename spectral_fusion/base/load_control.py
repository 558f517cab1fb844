"""Loading a ControlNet: a diffusers folder, or a repository of the hub."""

from pathlib import Path

from diffusers import ControlNetModel

from spectral_fusion.base.control import ControlNet
from spectral_fusion.base.folder import DAMAGED, either_variant
from spectral_fusion.base.interface import Base
from spectral_fusion.base.layers import dtype_of
from spectral_fusion.base.load import HUB_ID
from spectral_fusion.base.quiet import quietly
from spectral_fusion.errors import InputError


def open_controlnet(name: str | Path, base: Base) -> ControlNet:
    """Load a ControlNet for a base, from a diffusers folder or a hub id, in the base's precision and on its device.

    Raises:
        InputError: the base's family has none, or this one is missing, damaged, pickled, or made for another base.
    """
    base.check_control({}, str(name))
    path = Path(name).expanduser()
    if path.is_file():
        raise InputError(f"ControlNet {name} is a file; give the diffusers folder that holds config.json, or a hub id")
    if not path.is_dir() and not HUB_ID.fullmatch(str(name)):
        raise InputError(f"ControlNet {name} does not exist; give a diffusers folder or a hub id")
    folder = str(path) if path.is_dir() else str(name)
    try:
        with quietly():
            config = ControlNetModel.load_config(folder)
    except (OSError, ValueError) as error:
        raise InputError(_reason(folder)) from error
    base.check_control(config, str(name))

    def load(variant: str | None) -> ControlNetModel:
        with quietly():
            return ControlNetModel.from_pretrained(
                folder, torch_dtype=dtype_of(base.denoiser), variant=variant, use_safetensors=True
            )

    try:
        model = either_variant(load)
    except DAMAGED as error:
        raise InputError(_reason(folder, error)) from error
    label = path.resolve().name if path.is_dir() else str(name)
    return ControlNet(label, model.eval().requires_grad_(False).to(base.device))


def _reason(folder: str, error: Exception | None = None) -> str:
    """One line on why a ControlNet could not be loaded, and what to do."""
    path = Path(folder)
    if not path.is_dir():
        return f"ControlNet {folder} is not in the hub's cache, and not to be had; check the id and HF_HUB_OFFLINE"
    if not (path / "config.json").is_file():
        return f"ControlNet {folder} is no folder of diffusers (config.json is missing); give the folder that holds it"
    if list(path.glob("*.bin")) and not list(path.glob("*.safetensors")):
        return f"ControlNet {folder} holds pickled weights, which are never opened; get its .safetensors files"
    said = str(error).strip().splitlines()[0][:200] if error else "its config.json cannot be read"
    return f"ControlNet {folder} cannot be loaded ({said}); get it again"
