"""Loading a ControlNet: a diffusers folder, or a repository of the hub."""

import os
from pathlib import Path

import torch
from diffusers import ControlNetModel
from PIL import Image

from spectral_fusion.base.control import Control, ControlNet
from spectral_fusion.base.damage import class_name, loading, read_settings
from spectral_fusion.base.folder import either_variant
from spectral_fusion.base.interface import Base
from spectral_fusion.base.layers import dtype_of
from spectral_fusion.base.load import HUB_ID
from spectral_fusion.base.quiet import quietly
from spectral_fusion.errors import InputError

SETTINGS = "config.json"


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
    with loading("ControlNet", folder, SETTINGS), quietly():
        local = Path(folder, SETTINGS)
        config = read_settings(local) if local.is_file() else ControlNetModel.load_config(folder)
        class_name(config, "ControlNet", folder)
        base.check_control(config, str(name))
        model = either_variant(
            lambda variant: ControlNetModel.from_pretrained(
                folder, torch_dtype=dtype_of(base.denoiser), variant=variant, use_safetensors=True
            )
        )
        label = Path(os.path.realpath(path)).name if path.is_dir() else str(name)
        net = ControlNet(label, model.eval().requires_grad_(False).to(base.device))
        _try(net, base)
        return net


@torch.no_grad()
def _try(net: ControlNet, base: Base) -> None:
    """One step of it at the smallest size: settings that fit no picture show now, and not in the middle of one."""
    side = base.training_multiple
    noisy = torch.zeros(1, *base.latent_shape(side, side), device=base.device)
    time = torch.tensor([base.even_times(1)[0]], device=base.device)
    control = Control(net, Image.new("RGB", (side, side)))
    base.predict_controlled(noisy, time, base.condition([""]), control)
