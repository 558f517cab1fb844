"""A base without its weights: every model on the meta device, from configurations or a header alone."""

import inspect
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline

from spectral_fusion.base.clip_tokenizer import END, clip_tokenizer
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.damage import class_name, loading, read_settings
from spectral_fusion.base.folder import CLASSES, INDEX
from spectral_fusion.base.interface import Base
from spectral_fusion.base.load import base_of, locate
from spectral_fusion.base.original import text_config, text_layouts
from spectral_fusion.base.quiet import quietly
from spectral_fusion.base.single_file import write_configs
from spectral_fusion.errors import InputError
from spectral_fusion.identify import identify, read_header

CLIP_WORDS = 77
TEXT = {  # tokens that each family's denoiser reads, as its pipeline pads prompts
    "sd": CLIP_WORDS,
    "sdxl": CLIP_WORDS,
    "sd3": CLIP_WORDS + 256,
    "flux": 512,
    "flux2-klein": 512,
    "z-image": 512,
}
WIDTHS = ("cross_attention_dim", "joint_attention_dim", "cap_feat_dim")  # of the text, as families call it


def outline(base: str | Path) -> Base:
    """A base that knows the shapes of its weights and nothing else: it takes no memory, and loads in a second or two.

    Args:
        base: as `load.open_base` takes it. Of a folder and a hub id only configurations are read, of a single file its
            header.

    Raises:
        InputError: the base is missing, damaged, or of no family known here.
    """
    place = locate(base)
    with quietly():
        return _of_file(place) if isinstance(place, Path) else outline_of(place)


def outline_of(folder: str) -> Base:
    """`outline` of a diffusers folder or a hub id."""
    with loading("base", folder, INDEX):
        local = Path(folder, INDEX)
        index = read_settings(local) if local.is_file() else DiffusionPipeline.load_config(folder)
        name = class_name(index, "base", folder)
        if name not in CLASSES:
            raise InputError(f"base {folder} is a {name}; give one of {', '.join(CLASSES)}")
        kind, left_out = CLASSES[name]
        parts = {part: _part(folder, part, *where) for part, where in index.items() if _is_part(where)}
        settings = {key: index[key] for key in ("is_distilled", "force_zeros_for_empty_prompt") if key in index}
        missing = dict.fromkeys(name for name in inspect.signature(kind).parameters if name.startswith("tokenizer"))
        return base_of(kind(**missing | parts | left_out | settings))


def _is_part(where: Any) -> bool:
    return isinstance(where, (list, tuple)) and len(where) == 2 and None not in where


def _part(folder: str, name: str, library: str, kind: str) -> Any:
    """One part of a pipeline: models on the meta device, the scheduler as it is, of tokenizers CLIP's alone."""
    if name.startswith("tokenizer"):
        return clip_tokenizer(CLIP_WORDS, END) if kind.startswith("CLIP") else None
    if name.startswith("scheduler"):
        return getattr(diffusers, kind).from_pretrained(folder, subfolder=name)
    if not name.startswith(("unet", "transformer", "vae", "text_encoder")):
        return None
    with torch.device("meta"):
        if library == "diffusers":
            model = getattr(diffusers, kind)
            return model.from_config(model.load_config(folder, subfolder=name)).eval()
        model = getattr(transformers, kind)
        config = model.config_class.from_pretrained(folder, subfolder=name)
        return model(config).eval()


def _of_file(path: Path) -> Base:
    header = read_header(path, "base")
    identity = identify(header)
    identity.check_base()
    family, prediction = str(identity.family), identity.prediction
    assert prediction is not None
    with TemporaryDirectory() as folder:
        write_configs(Path(folder), header, family, prediction)
        for number, layout in enumerate(text_layouts(header, family)):
            home = Path(folder) / ("text_encoder" + ("", "_2")[number])
            home.mkdir()
            (home / "config.json").write_text(json.dumps(text_config(header, layout)), encoding="utf-8")
        return outline_of(folder)


def blank_condition(base: Base, count: int, dtype: torch.dtype) -> Condition:
    """What a denoiser is told by `count` prompts of usual length, as shapes."""
    config = base.denoiser.config
    width = next(config[name] for name in WIDTHS if config.get(name))
    kind: dict[str, Any] = {"dtype": dtype, "device": "meta"}
    embeds = torch.empty(count, TEXT.get(base.family, CLIP_WORDS), width, **kind)
    pooled = config.get("pooled_projection_dim")
    if base.family == "sdxl":
        pooled = base.parts["text_encoder_2"].config.projection_dim
    return Condition(embeds, torch.empty(count, pooled, **kind) if pooled else None)
