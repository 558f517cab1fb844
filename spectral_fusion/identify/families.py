"""Families of text-to-image models, by the names and shapes of their tensors.

The names are facts of the published files: the original layouts, and those of diffusers. Sources: the loaders of
diffusers (`single_file_utils`) and ComfyUI (`model_detection`), and the models' own configurations.
"""

from collections.abc import Callable
from dataclasses import dataclass

from spectral_fusion.identify.header import Header

FOLDER = "the diffusers folder of this model"
UNET = "model.diffusion_model."
START = r"^(model\.diffusion_model\.|diffusion_model\.|transformer\.|model\.|net\.|unet\.)?"
SD = "a Stable Diffusion 1.x or 2.x checkpoint, or one of Stable Diffusion XL"


@dataclass(frozen=True)
class Family:
    """One kind of base.

    Attributes:
        name: short, as settings and exports call it: "sdxl".
        title: as users call it, with its article: "a Stable Diffusion XL checkpoint".
        matches: whether a header is of this family.
        supported: whether it can be trained and sampled here.
        nearest: what to give in its stead, where it is not.
    """

    name: str
    title: str
    matches: Callable[[Header], bool]
    supported: bool = False
    nearest: str = SD


def names(pattern: str) -> Callable[[Header], bool]:
    """Matches files that have a tensor of such a name, after any of the usual prefixes."""
    return lambda header: header.has(START + pattern)


def context_width(header: Header) -> int | None:
    """Width of the text that a UNet's cross-attention reads: 768, 1024, 1280 or 2048."""
    shape = header.shape(START + r"(input_blocks|middle_block|down_blocks|mid_block).*attn2\.to_k\.weight$")
    return shape[1] if shape and len(shape) == 2 else None


def input_channels(header: Header) -> int | None:
    """Channels that a UNet reads: 4, or 9 for inpainting, 8 for editing, 5 with depth."""
    shape = header.shape(START + r"(input_blocks\.0\.0|conv_in)\.weight$")
    return shape[1] if shape and len(shape) == 4 else None


def _xl_unet(header: Header) -> bool:
    return header.has(START + r"(label_emb\.0\.0|add_embedding\.linear_1)\.weight$") and not _video(header)


def _xl(header: Header) -> bool:
    return header.has(r"^conditioner\.") or _xl_unet(header)


def _refiner(header: Header) -> bool:
    """One text encoder, the larger; a context of 1280."""
    if header.has(r"^conditioner\.embedders\.1\."):
        return False
    return header.has(r"^conditioner\.embedders\.0\.model\.") or (_xl_unet(header) and context_width(header) == 1280)


def _pruned_xl(header: Header) -> bool:
    """SSD-1B and Segmind-Vega: XL without its middle attention, or with blocks of uneven depth."""
    ldm = header.has(START + r"middle_block\.0\.") and not header.has(START + r"middle_block\.1\.")
    lacks = header.has(START + r"(input|output)_blocks\.") and not header.has(START + r"middle_block\.")
    return _xl(header) and (ldm or lacks)


def _sd2(header: Header) -> bool:
    return header.has(r"^cond_stage_model\.model\.") or context_width(header) == 1024


def _sd1(header: Header) -> bool:
    return header.has(START + r"input_blocks\.0\.0\.") or header.has(START + r"down_blocks\.0\.resnets\.0\.")


def _video(header: Header) -> bool:
    return header.has(r"\.(time_stack|time_mix_blocks|temporal_transformer_blocks|motion_modules)\.")


def _text_in(*widths: int) -> Callable[[Header], bool]:
    """FLUX.2 by the width of the text that it reads: three layers of its language model, side by side."""

    def matches(header: Header) -> bool:
        shape = header.shape(START + r"(txt_in|context_embedder)\.weight$")
        return names(r"single_stream_modulation\.lin")(header) and shape is not None and shape[1] in widths

    return matches


# First match wins; variants stand before what they are variants of.
FAMILIES = (
    Family("svd", "Stable Video Diffusion", _video),
    Family("playground-2.5", "a Playground v2.5 checkpoint", names(r"edm_mean$")),
    Family("cosxl", "a CosXL checkpoint, of another noise schedule", names(r"edm_vpred\.sigma_max$")),
    Family("kolors", "a Kolors checkpoint", names(r"encoder_hid_proj\.")),
    Family("sdxl-pruned", "a pruned Stable Diffusion XL (SSD-1B or Segmind Vega)", _pruned_xl),
    Family("sdxl-refiner", "a Stable Diffusion XL refiner", _refiner, nearest="the base model that it refines"),
    Family("sdxl", "a Stable Diffusion XL checkpoint", _xl, supported=True),
    Family("sd2", "a Stable Diffusion 2.x checkpoint", _sd2, supported=True),
    Family("upscaler", "a Stable Diffusion upscaler", lambda header: input_channels(header) == 7),
    Family("sd1", "a Stable Diffusion 1.x checkpoint", _sd1, supported=True),
    Family("sd3.5-large", "a Stable Diffusion 3.5 Large checkpoint", names(r"joint_blocks\.37\."), nearest=FOLDER),
    Family(
        "sd3.5-medium",
        "a Stable Diffusion 3.5 Medium checkpoint",
        names(r"joint_blocks\.\d+\.x_block\.attn2\."),
        nearest=FOLDER,
    ),
    Family(
        "sd3",
        "a Stable Diffusion 3 checkpoint",
        names(r"(joint_blocks\.|transformer_blocks\.0\.norm1_context\.)"),
        nearest=FOLDER,
    ),
    Family("chroma", "a Chroma checkpoint", names(r"distilled_guidance_layer\.")),
    Family("flux2-klein-4b", "a FLUX.2-klein 4B checkpoint", _text_in(7680)),
    Family("flux2-klein-9b", "a FLUX.2-klein 9B checkpoint", _text_in(12288)),
    Family("flux2", "a FLUX.2 checkpoint", names(r"(double_stream_modulation_img|single_stream_modulation)\.lin")),
    Family("flux3", "a FLUX.3 checkpoint", names(r"early_stream_modulations\.")),
    Family("hunyuan-video", "a HunyuanVideo checkpoint", names(r"txt_in\.individual_token_refiner\.")),
    Family("hidream", "a HiDream checkpoint", names(r"double_stream_blocks\.")),
    Family(
        "flux1",
        "a Flux checkpoint (FLUX.1)",
        names(r"(double_blocks\.\d+\.img_attn\.|single_transformer_blocks\.)"),
        nearest=FOLDER,
    ),
    Family("qwen-image-2.1", "a Qwen-Image 2.1 checkpoint", names(r"txt_in\.text_norm\.")),
    Family("qwen-image", "a Qwen-Image checkpoint", names(r"(transformer_blocks\.\d+\.img_mod\.|txt_norm\.weight$)")),
    Family("z-image", "a Z-Image checkpoint", names(r"(layers\.0\.adaLN_modulation\.0\.|all_x_embedder\.)")),
    Family("lumina2", "a Lumina 2 checkpoint", names(r"cap_embedder\.0\.")),
    Family("krea2", "a Krea 2 checkpoint", names(r"txtfusion\.")),
    Family("anima", "an Anima checkpoint", names(r"llm_adapter\.")),
    Family("cosmos", "a Cosmos checkpoint", names(r"x_embedder\.proj\.1\.weight$")),
    Family("auraflow", "an AuraFlow checkpoint", names(r"double_layers\.0\.attn\.")),
    Family("hunyuan-dit", "a Hunyuan-DiT checkpoint", names(r"mlp_t5\.")),
    Family("sana", "a Sana checkpoint", names(r"blocks\.0\.cross_attn\.(q|kv)_linear\.|caption_norm\.")),
    Family("wan", "a Wan checkpoint", names(r"(head\.modulation$|vace_blocks\.)")),
    Family("ltx-video", "an LTX-Video checkpoint", names(r"patchify_proj\.")),
    Family("pixart", "a PixArt checkpoint", names(r"(y_embedder\.y_proj\.|caption_projection\.)")),
    Family("mochi", "a Mochi checkpoint", names(r"t5_yproj\.")),
    Family("stable-cascade", "a Stable Cascade checkpoint", names(r"(clip_txt_mapper|clf\.1)\.")),
)
