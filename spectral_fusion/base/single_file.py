"""Loading a single file in the original layout: Stable Diffusion 1.x, 2.x and XL, offline."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import CLIPTokenizer

from spectral_fusion.base.clip_tokenizer import END, clip_tokenizer
from spectral_fusion.base.original import scheduler_config, text_config, text_layouts, unet_config, vae_config
from spectral_fusion.base.text_encoder import load_text_encoder
from spectral_fusion.errors import InputError
from spectral_fusion.identify import Header, Prediction, identify, read_header

CLIP_MODEL, PROJECTED = ["transformers", "CLIPTextModel"], ["transformers", "CLIPTextModelWithProjection"]
TOKENIZER = ["transformers", "CLIPTokenizer"]
PARTS = {"vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet2DConditionModel"]}
NONE = [None, None]
SD = {
    "_class_name": "StableDiffusionPipeline",
    "requires_safety_checker": False,
    "text_encoder": CLIP_MODEL,
    "tokenizer": TOKENIZER,
    "safety_checker": NONE,
    "feature_extractor": NONE,
    "image_encoder": NONE,
    **PARTS,
}
SDXL = {
    "_class_name": "StableDiffusionXLPipeline",
    "force_zeros_for_empty_prompt": True,
    "add_watermarker": False,
    "text_encoder": CLIP_MODEL,
    "text_encoder_2": PROJECTED,
    "tokenizer": TOKENIZER,
    "tokenizer_2": TOKENIZER,
    "feature_extractor": NONE,
    "image_encoder": NONE,
    **PARTS,
}
PADDING = ("", "_2")


def load_single_file(path: Path, dtype: torch.dtype) -> tuple[DiffusionPipeline, Prediction]:
    """A checkpoint, and what it says that it predicts. The autoencoder comes in float32, as from a folder.

    The settings that a single file lacks are inferred from its tensors, so that diffusers need not ask the hub.

    Raises:
        InputError: the file is missing, damaged, incomplete, or no base of 1.x, 2.x or XL; the message says what it is.
    """
    header = read_header(path, "base")
    identity = identify(header)
    identity.check_base()
    family, prediction = str(identity.family), identity.prediction
    assert prediction is not None
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    try:
        parts = _text_parts(header, family, dtype)
        with TemporaryDirectory() as folder:
            write_configs(Path(folder), header, family, prediction)
            source = {"config": folder, "local_files_only": True}
            vae = AutoencoderKL.from_single_file(str(path), subfolder="vae", dtype=torch.float32, **source)
            pipeline = kind.from_single_file(str(path), dtype=dtype, vae=vae, **parts, **source)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # see `damage.loading`
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"base {path} is {identity.title} with missing or misshapen tensors ({reason}); get it again"
        ) from error
    return pipeline, prediction


def _text_parts(header: Header, family: str, dtype: torch.dtype) -> dict[str, Any]:
    """Text encoders and their tokenizers, by their names in the pipeline."""
    parts: dict[str, Any] = {}
    for number, layout in enumerate(text_layouts(header, family)):
        config, ending = text_config(header, layout), PADDING[number]
        tokenizer: CLIPTokenizer = clip_tokenizer(config["max_position_embeddings"], "!" if layout.open_clip else END)
        if config["vocab_size"] != len(tokenizer):
            raise InputError(
                f"base {header.path} has {config['vocab_size']} tokens, CLIP's tokenizer {len(tokenizer)}; "
                "give a diffusers folder"
            )
        parts[f"tokenizer{ending}"] = tokenizer
        parts[f"text_encoder{ending}"] = load_text_encoder(header, layout, dtype)
    return parts


def write_configs(folder: Path, header: Header, family: str, prediction: Prediction) -> None:
    """Write what a diffusers folder says of itself and a single file does not, but of the text encoders."""
    # PNDM cannot rescale its schedule, and a saved pipeline keeps the name of its sampler.
    plain = family != "sdxl" and not prediction.zero_snr
    sampler = "PNDMScheduler" if plain else "EulerDiscreteScheduler"
    settings = {
        "unet/config.json": unet_config(header, family, prediction),
        "vae/config.json": vae_config(header, family, prediction),
        "scheduler/scheduler_config.json": scheduler_config(prediction) | ({"skip_prk_steps": True} if plain else {}),
        "model_index.json": {**(SDXL if family == "sdxl" else SD), "scheduler": ["diffusers", sampler]},
    }
    for name, values in settings.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
