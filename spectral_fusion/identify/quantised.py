"""Which tool quantised a file, by the names and types of its tensors."""

from spectral_fusion.identify.header import Header

# Tool, and a pattern of tensor names that only its files have; first match wins.
TOOLS = (
    ("bitsandbytes in NF4", r"\.quant_state\.bitsandbytes__nf4$"),
    ("bitsandbytes in FP4", r"\.quant_state\.bitsandbytes__fp4$"),
    ("bitsandbytes in int8", r"\.SCB$"),
    ("Nunchaku (SVDQuant)", r"\.(wscales|proj_down|smooth_factor)$"),
    ("GPTQ or AWQ", r"\.qzeros$"),
    ("compressed-tensors", r"\.weight_packed$"),
    ("ComfyUI", r"(\.comfy_quant|(^|\.)scaled_fp8|\.scale_weight|\.weight_scale)$"),
    ("quanto", r"\.weight\._(data|scale)$"),
    ("SDNQ", r"\.(zero_point|svd_up)$"),
    ("torchao", r"\.weight\.(int_data|tensor_impl|qdata)|\.weight_(qdata|scale_and_zero)$"),
)
FLOAT8 = {"F8_E4M3", "F8_E5M2"}


def quantised_by(header: Header) -> str | None:
    """The tool, such as "bitsandbytes in NF4"; None where weights are stored as floats of 16 bits or more."""
    for tool, pattern in TOOLS:
        if header.has(pattern):
            return tool
    if "quantization_config" in header.metadata or "_quantization_metadata" in header.metadata:
        return "a tool that its metadata names"
    return None


def plain_float8(header: Header) -> bool:
    """Weights stored as floats of 8 bits without a scale: rounded, but they load by a cast alone."""
    return bool(FLOAT8 & set(header.dtypes.values())) and quantised_by(header) is None
