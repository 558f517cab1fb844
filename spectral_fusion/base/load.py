"""Loading a base: the bundled one, a diffusers folder, a single-file checkpoint, or a repository of the hub."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextConfig, CLIPTextModel

from spectral_fusion import toybox
from spectral_fusion.base.checkpoint import Checkpoint
from spectral_fusion.base.clip_tokenizer import END, clip_tokenizer
from spectral_fusion.base.interface import Base
from spectral_fusion.base.quiet import quietly
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError

PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMPONENTS = {
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
}


FAMILIES: dict[str, type[Base]] = {"StableDiffusionPipeline": StableDiffusion}
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
    base: str | Path = "toybox", *, dtype: torch.dtype | None = None, device: str | torch.device | None = None
) -> Base:
    """Load a Stable Diffusion 1.x or 2.x base, without its safety checker and with its progress bar off.

    Args:
        base: "toybox", a diffusers folder, a `.safetensors` checkpoint in the original layout, or a hub id
            ("owner/name", taken from the hub's own cache; HF_HUB_OFFLINE=1 keeps it from the network).
        dtype: float32 where None.
        device: the CPU where None.

    Raises:
        InputError: the base is missing, damaged, pickled, or not Stable Diffusion 1.x or 2.x.
    """
    dtype = torch.float32 if dtype is None else dtype
    device = _check_device("cpu" if device is None else device)
    path = toybox.WEIGHTS if str(base) == "toybox" else Path(base).expanduser()
    with quietly():
        if str(base) == "toybox":
            pipeline = _load_toybox(dtype)
        elif path.is_dir():
            pipeline = _load_folder(str(path), dtype)
        elif path.suffix.lower() in PICKLES:
            raise InputError(
                f"base {path} is a pickle, which runs code when opened; use the .safetensors of this model"
            )
        elif path.suffix.lower() == ".safetensors":
            pipeline = _load_single_file(path, dtype)
        elif HUB_ID.fullmatch(str(base)):
            pipeline = _load_folder(str(base), dtype)
        else:
            raise InputError(f"base {base} does not exist; give toybox, a folder, a .safetensors file or a hub id")
    pipeline.register_to_config(_name_or_path=str(base))
    pipeline.set_progress_bar_config(disable=True)
    return base_of(pipeline.to(device))


def best_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_dtype(device: str) -> torch.dtype:
    """What is fast there without harm: float32 on the CPU, float16 on a GPU."""
    return torch.float32 if device == "cpu" else torch.float16


def _check_device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(":")[0][:100]
        raise InputError(f"device {device} cannot be used ({reason}); give cpu, or a GPU that torch sees") from error


def _load_toybox(dtype: torch.dtype) -> StableDiffusionPipeline:
    try:
        return _load_folder(str(toybox.WEIGHTS), dtype)
    except InputError as error:
        raise InputError(
            f"bundled base {toybox.WEIGHTS} is missing or damaged; run: pip install --force-reinstall spectral-fusion"
        ) from error


def _load_folder(folder: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """From a diffusers folder or a hub id: diffusers reads both alike."""
    try:
        kind = StableDiffusionPipeline.load_config(folder).get("_class_name")
    except (OSError, ValueError) as error:
        raise InputError(_reason(folder, error)) from error
    if kind != "StableDiffusionPipeline":
        raise InputError(f"base {folder} is a {kind}; give a StableDiffusionPipeline (Stable Diffusion 1.x or 2.x)")
    first: Exception | None = None
    for variant in (None, "fp16"):  # many repositories hold the half-precision files alone
        try:
            return StableDiffusionPipeline.from_pretrained(
                folder,
                dtype=dtype,
                variant=variant,
                use_safetensors=True,
                safety_checker=None,
                feature_extractor=None,
                image_encoder=None,
                requires_safety_checker=False,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            first = first or error
    assert first is not None
    raise InputError(_reason(folder, first)) from first


def _reason(folder: str, error: Exception) -> str:
    """One line on why a folder or repository could not be loaded, and what to do."""
    path = Path(folder)
    if not path.is_dir():
        return f"base {folder} is not in the hub's cache, and not to be had; check the id, network and HF_HUB_OFFLINE"
    if not (path / "model_index.json").is_file():
        return f"base {folder} is no diffusers folder (model_index.json is missing); give the folder that holds it"
    pickled = [p.name for p in path.glob("*/*.bin") if not list(p.parent.glob("*.safetensors"))]
    if pickled:
        return f"base {folder} holds pickled weights ({pickled[0]}), which are never opened; get its .safetensors files"
    return f"base {folder} cannot be loaded ({str(error).strip().splitlines()[0][:200]}); get it again"


def _load_single_file(path: Path, dtype: torch.dtype) -> StableDiffusionPipeline:
    """The settings that a single file lacks are inferred from its tensors, so that diffusers need not ask the hub."""
    if not path.is_file():
        raise InputError(f"base {path} does not exist; check the path")
    checkpoint = Checkpoint.read(path)
    text = checkpoint.text_encoder_config()
    tokenizer = clip_tokenizer(text["max_position_embeddings"], "!" if checkpoint.is_sd2 else END)
    if text["vocab_size"] != len(tokenizer):
        raise InputError(
            f"base {path} has {text['vocab_size']} tokens, CLIP's tokenizer {len(tokenizer)}; give a diffusers folder"
        )
    with TemporaryDirectory() as folder:
        _write_configs(Path(folder), checkpoint)
        parts = {"tokenizer": tokenizer}
        try:
            if not checkpoint.is_sd2:
                parts["text_encoder"] = _clip_text_encoder(checkpoint, dtype)
            return StableDiffusionPipeline.from_single_file(
                str(path), config=folder, dtype=dtype, local_files_only=True, **parts
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"base {path} has missing or misshapen tensors ({reason}); get it again") from error


def _clip_text_encoder(checkpoint: Checkpoint, dtype: torch.dtype) -> CLIPTextModel:
    """CLIP under either of the two prefixes that checkpoints use; diffusers knows only one."""
    model = CLIPTextModel(CLIPTextConfig(**checkpoint.text_encoder_config()))
    wrapper = "text_model." if hasattr(model, "text_model") else ""
    wanted = {name: checkpoint.clip_prefix + name.removeprefix(wrapper) for name in model.state_dict()}
    with safe_open(checkpoint.path, framework="pt") as file:
        model.load_state_dict({name: file.get_tensor(key) for name, key in wanted.items()})
    return model.to(dtype).eval()


def _write_configs(folder: Path, checkpoint: Checkpoint) -> None:
    settings: dict[str, dict[str, Any]] = {
        "unet/config.json": checkpoint.unet_config(),
        "vae/config.json": checkpoint.vae_config(),
        "text_encoder/config.json": checkpoint.text_encoder_config(),
        "scheduler/scheduler_config.json": checkpoint.scheduler_config(),
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "requires_safety_checker": False,
            **COMPONENTS,
        },
    }
    for name, values in settings.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
