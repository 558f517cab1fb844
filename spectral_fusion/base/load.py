"""Loading a base: the bundled one, a diffusers folder, a single-file checkpoint, or a repository of the hub."""

import os
import re
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from spectral_fusion.base.bundled import BUNDLED, Bundled
from spectral_fusion.base.default import DEFAULT
from spectral_fusion.base.flux import Flux
from spectral_fusion.base.flux2 import Flux2Klein
from spectral_fusion.base.folder import load_folder
from spectral_fusion.base.interface import Base
from spectral_fusion.base.prediction import settle_prediction
from spectral_fusion.base.quiet import quietly
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.base.sd3 import StableDiffusion3
from spectral_fusion.base.sdxl import StableDiffusionXL
from spectral_fusion.base.single_file import load_single_file
from spectral_fusion.base.z_image import ZImage
from spectral_fusion.errors import InputError
from spectral_fusion.identify import read_header
from spectral_fusion.identify.identity import Prediction, PredictionType

STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

FAMILIES: dict[str, type[Base]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
    "Flux2KleinPipeline": Flux2Klein,
    "ZImagePipeline": ZImage,
}
"""The family of each class of diffusers pipeline."""


def base_of(pipeline: DiffusionPipeline) -> Base:
    """The base that a loaded diffusers pipeline is.

    Raises:
        InputError: no family here has this class of pipeline.
    """
    kind = type(pipeline).__name__
    if kind not in FAMILIES:
        raise InputError(f"a {kind} is of no family known here; give a {' or '.join(FAMILIES)}")
    return FAMILIES[kind](pipeline)


def open_base(
    base: str | Path = DEFAULT,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    prediction_type: PredictionType | None = None,
) -> Base:
    """Load a base, without its safety checker and with its progress bar off.

    Args:
        base: a bundled base ("toybox", "toybox128" or "toybox-sd3"), a diffusers folder, a `.safetensors` checkpoint in
            the original layout (Stable Diffusion 1.x, 2.x or XL), or a hub id ("owner/name", taken from the hub's own
            cache; HF_HUB_OFFLINE=1 keeps it from the network).
        dtype: float32 where None. An autoencoder that says `force_upcast` stays in float32.
        device: the CPU where None.
        prediction_type: "epsilon" or "v_prediction"; None: what the base says, and a single file that says nothing is
            probed.

    Raises:
        InputError: the base is missing, damaged, pickled, or of no family known here; the message says what it is.
    """
    dtype = torch.float32 if dtype is None else dtype
    device = _check_device("cpu" if device is None else device)
    with quietly():
        pipeline, said = _load(base, dtype)
    if not getattr(pipeline.vae.config, "force_upcast", False):
        pipeline.vae.to(dtype)
    pipeline.register_to_config(_name_or_path=str(base))
    pipeline.set_progress_bar_config(disable=True)
    opened = base_of(pipeline.to(device))
    if isinstance(opened, StableDiffusion):
        settle_prediction(opened, said, prediction_type)
    return opened


def _load(base: str | Path, dtype: torch.dtype) -> tuple[DiffusionPipeline, Prediction | None]:
    """The pipeline, and what a single file says that it predicts."""
    if bundled := BUNDLED.get(str(base)):
        return _load_bundled(bundled, dtype), None
    place = locate(base)
    return load_single_file(place, dtype) if isinstance(place, Path) else (load_folder(place, dtype), None)


def locate(base: str | Path) -> Path | str:
    """A single file as a path; a folder, a bundled base's too, or a hub id as text.

    Raises:
        InputError: it is a pickle, or none of these.
    """
    path = BUNDLED[str(base)].weights if str(base) in BUNDLED else Path(base).expanduser()
    if path.is_dir():
        return str(path)
    if path.suffix.lower() in PICKLES:
        raise InputError(f"base {path} is a pickle, which runs code when opened; use the .safetensors of this model")
    if path.suffix.lower() == ".safetensors":
        return path
    if HUB_ID.fullmatch(str(base)):
        return str(base)
    named = " or ".join(BUNDLED)
    raise InputError(f"base {base} does not exist; give {named}, a folder, a .safetensors file or a hub id")


def own_dtype(base: str | Path) -> torch.dtype:
    """The type that holds a base's weights exactly: half where all of its files are; float32 where that is not told."""
    path = BUNDLED[str(base)].weights if str(base) in BUNDLED else Path(base).expanduser()
    files = [path] if path.is_file() else sorted(path.glob("*/*.safetensors"))
    found = {dtype for file in files for dtype in read_header(file, "base").dtypes.values()} & set(STORED)
    return STORED[found.pop()] if len(found) == 1 else torch.float32


def best_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_dtype(device: str) -> torch.dtype:
    """What is fast there without harm: float32 on the CPU, float16 on a GPU."""
    return torch.float32 if device == "cpu" else torch.float16


def _check_device(device: str | torch.device) -> torch.device:
    # cuBLAS reads it when it is first used; a training needs it to give the same file each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(":")[0][:100]
        raise InputError(f"device {device} cannot be used ({reason}); give cpu, or a GPU that torch sees") from error


def _load_bundled(bundled: Bundled, dtype: torch.dtype) -> DiffusionPipeline:
    try:
        return load_folder(str(bundled.weights), dtype)
    except InputError as error:
        raise InputError(
            f"bundled base {bundled.weights} is missing or damaged; run: pip install --force-reinstall spectral-fusion"
        ) from error
