"""Files that are no base: LoRAs and their kin, embeddings, control networks, single parts of a model."""

from dataclasses import dataclass

from spectral_fusion.identify.header import Header

OURS = "spectral_fusion.format_version"

# Kind, and a pattern of tensor names that gives it away; first match wins.
ADAPTERS = (
    (
        "a concept of this program whose metadata was lost",
        r"^(unet|transformer|text_encoder\w*)\..*\.(U|X_U)$|\.spectral_[ABUX]",
    ),
    ("an IP-Adapter", r"^(ip_adapter|image_proj)\."),
    ("a control LoRA", r"^lora_controlnet$"),
    ("a LoKr", r"[._]lokr_w[12]"),
    ("a LoHa", r"[._]hada_w[12]"),
    ("a BOFT", r"[._]boft_(R|s)"),
    ("an OFT", r"[._](oft_blocks|oft_diag|oft_R|oft_)"),
    ("a GLoRA", r"\.(a1|b1)\.weight$"),
    ("an (IA)³", r"[._]ia3_l|\.on_input$"),
    ("a DoRA", r"dora_scale$|lora_magnitude_vector"),
    ("a LoRA", r"lora_(unet|te\d?|transformer|prior|up|down|mid|A|B)\b|lora_(unet|te\d?)_|[._]lora[._]"),
    ("a LyCORIS full-difference file", r"\.diff(_b)?$"),
)
EMBEDDINGS = r"^(emb_params|string_to_param|clip_[lgh]|t5xxl|<.*>)$"
# Single parts of a model, of names that no whole checkpoint has alone.
PARTS = (
    ("a ControlNet", r"^(control_model|controlnet_|controlnet\.)|^controlnet_cond_embedding"),
    ("a T2I-Adapter", r"^adapter\.(body|conv_in)"),
    ("an upscaler of pictures (ESRGAN)", r"^(model\.0\.weight|conv_first\.weight|body\.0\.rdb1)"),
    ("a text encoder (T5) alone", r"(^|\.)encoder\.block\.0\.layer\.0\.SelfAttention"),
    ("a language model alone", r"^(model\.)?(language_model\.)?layers\.0\.self_attn\.q_proj"),
    (
        "a text encoder (CLIP) alone",
        r"^(text_encoder\.|model\.)?(text_model\.|transformer\.resblocks\.|transformer\.text)",
    ),
    ("an autoencoder (VAE) alone", r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|conv1|down|mid|up|middle)"),
)


@dataclass(frozen=True)
class Adapter:
    """What an adapter is, and the family of the base it belongs to where the file tells."""

    kind: str
    family: str | None


def adapter_of(header: Header) -> Adapter | None:
    """What kind of adapter or embedding this is; None where it is neither."""
    if OURS in header.metadata:
        return Adapter("a concept of this program", None)
    for kind, pattern in ADAPTERS:
        if header.has(pattern):
            return Adapter(kind, _family_of(header))
    if header.has(EMBEDDINGS) or _lone_embedding(header):
        return Adapter("a textual-inversion embedding", _embedding_family(header))
    return None


def part_of(header: Header) -> str | None:
    """Which single part of a model this is; None where it is none of those known."""
    return next((kind for kind, pattern in PARTS if header.has(pattern)), None)


def _lone_embedding(header: Header) -> bool:
    """One small matrix under any name, as wide as a text encoder."""
    if len(header.shapes) != 1:
        return False
    (shape,) = header.shapes.values()
    return len(shape) in (1, 2) and shape[-1] in (768, 1024, 1280) and (len(shape) == 1 or shape[0] <= 256)


def _embedding_family(header: Header) -> str | None:
    if "clip_g" in header.shapes:
        return "sd3" if "t5xxl" in header.shapes else "sdxl"
    widths = {shape[-1] for shape in header.shapes.values() if shape}
    return {768: "sd1", 1024: "sd2"}.get(widths.pop()) if len(widths) == 1 else None


def _family_of(header: Header) -> str | None:
    """By the metadata that trainers write, else by the names of blocks and the width of the text."""
    said = (
        header.metadata.get("ss_base_model_version", "") + header.metadata.get("modelspec.architecture", "")
    ).lower()
    for word, family in (("xl", "sdxl"), ("v2", "sd2"), ("v1", "sd1"), ("flux-2", "flux2"), ("flux", "flux1")):
        if word in said:
            return family
    for pattern, family in (
        (r"lora_te2_|lora_unet_(input|output)_blocks_|text_encoder_2\.", "sdxl"),
        (r"single_transformer_blocks|double_blocks|single_blocks", "flux1"),
        (r"joint_blocks", "sd3"),
        (r"noise_refiner|context_refiner", "z-image"),
        (r"transformer_blocks[._]\d+[._](attn[._]add_|img_mod)", "qwen-image"),
    ):
        if header.has(pattern):
            return family
    down = header.shape(r"attn2[._](processor[._])?to_k[._].*(down\.weight|lora_A\.weight)$")
    return {768: "sd1", 1024: "sd2", 2048: "sdxl"}.get(down[1]) if down and len(down) > 1 else None
