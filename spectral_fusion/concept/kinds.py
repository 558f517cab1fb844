"""What a safetensors file is that is no concept, from the names of its tensors."""

import re
from collections.abc import Collection, Mapping

# The first pattern that any name matches decides, so the more special kinds come first.
KINDS = (
    (r"(^|\.)lokr_", "a LoKr (of LyCORIS; a concept has another form: train one)"),
    (r"(^|\.)hada_", "a LoHa (of LyCORIS; a concept has another form: train one)"),
    (r"(^|\.)(oft_blocks|oft_diag|oft_R|boft_R)", "an OFT or BOFT adapter (a concept has another form: train one)"),
    (r"(^|\.)(ia3_|on_input$)", "an IA3 adapter (a concept has another form: train one)"),
    (r"(^|\.)dora_scale|lora_magnitude_vector", "a DoRA (load it with load_lora_weights)"),
    (r"(^|\.)lora_(A|B|up|down|te|unet|mid|linear_layer)|\.lora\.|^lora_", "a LoRA (load it with load_lora_weights)"),
    (
        r"\.(U|S|V|A|B|X_U|X_V|c)$",
        "a concept that has lost its metadata (another program saved it again; get the original, or train it again)",
    ),
    (r"^(control_model\.|controlnet_|input_hint_block|zero_convs)", "a ControlNet"),
    (r"^(ip_adapter|image_proj)\b", "an IP-Adapter"),
    (r"^motion_modules?\.|\.motion_modules\.", "a motion module (of AnimateDiff)"),
    (r"^(conditioner\.embedders)", "a base model of Stable Diffusion XL (give it as --base)"),
    (
        r"(^|\.)(double_blocks|single_blocks|joint_blocks|transformer_blocks\.0\.attn\.to_q)\b",
        "a base model of another family (a transformer)",
    ),
    (
        r"^(model\.diffusion_model\.|down_blocks\.|first_stage_model\.|input_blocks\.)",
        "a base model (give it as --base)",
    ),
    (r"^(encoder|decoder)\.(conv_in|down_blocks|up_blocks|down|up)\b", "an autoencoder (VAE)"),
    (r"^(text_model|cond_stage_model|transformer\.text_model)\.", "a text encoder"),
    (r"^clip_[lg]$", "an embedding for Stable Diffusion XL (it fits no concept here)"),
    (r"^(emb_params|string_to_param)", "a textual-inversion embedding (load it with load_textual_inversion)"),
    (r"^(linear|layer_structure|\d+\.linear)\b", "a hypernetwork"),
    (r"^optimizer\.|^average\.|^weight\.", "a checkpoint of a training"),
)


def kind_of(tensors: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | Collection[str] = ()) -> str:
    """What the file is, with an article.

    Args:
        tensors: name -> shape.
    """
    if "spectral_fusion.training" in metadata:
        return "the checkpoint of a training (go on with it: train --resume)"
    for pattern, words in KINDS:
        if any(re.search(pattern, name) for name in tensors):
            return words
    if len(tensors) == 1 and len(next(iter(tensors.values()))) in (1, 2):
        return "a textual-inversion embedding (load it with load_textual_inversion)"
    if not tensors:
        return "a safetensors file without tensors"
    return "some other safetensors file"
