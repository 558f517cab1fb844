"""How the tensors of LoRA files are called, and which layer of a base each name stands for.

Programs disagree about both halves of a key. The end says what the tensor is:

    lora_down / lora_up / lora_mid .weight, alpha       kohya, LyCORIS
    lora_A / lora_B .weight                             PEFT, diffusers
    lora.down / lora_linear_layer.down / to_q_lora.down .weight     earlier diffusers
    hada_*, lokr_*, oft_*, dora_scale, diff, ...        LyCORIS' other methods

The beginning says which layer: diffusers' own path, that path with underscores (kohya), the path after
`base_model.model.` (PEFT), or the name in the original latent-diffusion code (kohya for SDXL). `lora_diffusion` counts
layers instead: `unet:12:up`.
"""

import re
from collections.abc import Iterable, Mapping

from spectral_fusion.concept.keys import original_name

ENDINGS = (
    (r"[._]lora(?:_linear_layer)?\.(down|up|mid)\.weight", r"\1"),
    (r"\.lora_(down|up|mid)\.weight", r"\1"),
    (r"\.lora_A(?:\.\w+)?\.weight", "down"),
    (r"\.lora_B(?:\.\w+)?\.weight", "up"),
    (r"\.lora_magnitude_vector(?:\.\w+)*", "dora_scale"),
    (r":(down|up)", r"\1"),
    (r"\.((?:hada|lokr|oft|boft)_\w+|alpha|dora_scale|diff|diff_b|on_input|bias_\w+|scale)", r"\1"),
)
PARTS = (  # longest first: what a key may begin with, and the part of the base that this is
    ("base_model.model.", ""),
    ("diffusion_model.", "unet_"),
    ("lora_unet_", "unet_"),
    ("lora_te1_", "text_encoder_"),
    ("lora_te2_", "text_encoder_2_"),
    ("lora_te_", "text_encoder_"),
)
NUMBERED = re.compile(r"(unet|text_encoder):(\d+)")
NUMBERED_TARGETS = {"unet": {"CrossAttention", "Attention", "GEGLU"}, "text_encoder": {"CLIPAttention"}}


def split_key(key: str) -> tuple[str, str] | None:
    """A key as the name of its layer in the file and what it is of it (`down`, `up`, `alpha`, ...); None if unknown."""
    for pattern, what in ENDINGS:
        if match := re.fullmatch(rf"(.+?){pattern}", key):
            return match[1], match.expand(what.replace(r"\1", r"\2"))
    return None


class LayerNames:
    """The layers of a base by every name that files have for them.

    Args:
        layers: names such as `unet.<module path>` and `text_encoder.<module path>`.
    """

    def __init__(self, layers: Iterable[str]) -> None:
        self.layers = list(layers)
        self.known = {_flat(name): name for name in self.layers}
        self.known |= {_flat(old): name for name, old in _original_names(self.layers).items()}
        self.parts = list(dict.fromkeys(name.partition(".")[0] for name in self.layers))

    def find(self, name: str) -> str | None:
        """The layer that a name of a file stands for."""
        if match := NUMBERED.fullmatch(name):
            numbered, index = _numbered(self.layers, match[1]), int(match[2])
            return numbered[index] if index < len(numbered) else None
        for start, part in PARTS:
            if name.startswith(start):
                name = part + name.removeprefix(start)
        flat = _flat(name)
        candidates = [flat, *(f"{part}_{flat}" for part in self.parts)]
        return next((self.known[each] for each in candidates if each in self.known), None)


def _flat(name: str) -> str:
    """A name with underscores alone, without what some programs put in or leave out."""
    flat = name.replace(".processor.", ".").replace(".", "_").replace("text_model_", "", 1)
    return re.sub(r"(attn\d_to_out)$", r"\1_0", flat)


def _numbered(layers: Iterable[str], part: str) -> list[str]:
    """Layers in the order of `lora_diffusion`: down, up, middle; in each block feed-forward between the attentions."""
    blocks: dict[str, int] = {"down_blocks": 0, "up_blocks": 1, "mid_block": 2}
    inside = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj"]
    inside += [name.replace("attn1", "attn2") for name in inside[:4]]
    if part == "text_encoder":
        inside = ["k_proj", "v_proj", "q_proj", "out_proj"]
    found = []
    for name in layers:
        owner, _, path = name.partition(".")
        ending = next((i for i, end in enumerate(inside) if path.endswith("." + end)), None)
        if owner == part and ending is not None:
            place = tuple(int(number) for number in re.findall(r"\.(\d+)\.", path.removesuffix(inside[ending])))
            found.append((blocks.get(path.partition(".")[0], 0), place, ending, name))
    return [name for *_, name in sorted(found)]


def _original_names(layers: Iterable[str]) -> Mapping[str, str]:
    """UNet layers by their names in the original latent-diffusion code: `unet.input_blocks.1.1.proj_in`."""
    paths = [name.removeprefix("unet.") for name in layers if name.startswith("unet.")]
    resnets = {match[1] for path in paths if (match := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", path))}
    per_level = len(resnets) + 1  # and what changes the size
    crossed = {match[1] for path in paths if (match := re.match(r"up_blocks\.(\d+)\.attentions\.", path))}
    names = {path: original_name(path, per_level=per_level, crossed=crossed) for path in paths}
    return {f"unet.{path}": f"unet.{old}" for path, old in names.items() if old is not None}
