"""The base as the command line names it, for the verbs that load one."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spectral_fusion.errors import InputError

if TYPE_CHECKING:
    from spectral_fusion.base.interface import Base
    from spectral_fusion.concept import ConceptInfo

Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps. Default: a GPU where there is one.")]
Precision = Annotated[
    Literal["fp32", "fp16", "bf16"] | None, typer.Option(help="Default: fp16 on a GPU, fp32 on the CPU.")
]
LowMemory = Annotated[
    bool, typer.Option("--low-memory", help="Keep one model at a time on the GPU, and decode large pictures in tiles.")
]
Quantize = Annotated[
    Literal["int8", "fp8", "nf4"] | None,
    typer.Option(help="Hold the denoiser in 8 or 4 bits; needs torchao, or bitsandbytes. Concepts act beside it."),
]
OffloadBlocks = Annotated[
    bool,
    typer.Option("--offload-blocks", help="As --low-memory, and of the denoiser one block at a time; slow."),
]
PredictionType = Annotated[
    Literal["epsilon", "v_prediction"] | None,
    typer.Option(help="What the base predicts. Default: as the concepts were trained, as its files say, or asked."),
]


def open_base(
    base: str,
    device: str | None = None,
    precision: str | None = None,
    prediction_type: PredictionType = None,
    concepts: Iterable["ConceptInfo"] = (),
    low_memory: bool = False,
    offload_blocks: bool = False,
    quantize: Quantize = None,
) -> "Base":
    """Load a base; None chooses a GPU where there is one, and what is fast there.

    Args:
        concepts: what it is loaded for; where their training was told what the base predicts, that is taken over.

    Raises:
        InputError: the base cannot be loaded, or what quantizes it is not installed.
    """
    from spectral_fusion.base.interface import DTYPES
    from spectral_fusion.base.load import best_device, best_dtype
    from spectral_fusion.base.load import open_base as load
    from spectral_fusion.base.quantise import check_scheme, quantise

    if quantize is not None:
        check_scheme(quantize)
        if offload_blocks:
            raise InputError("blocks that are quantized cannot come and go; give --offload-blocks or --quantize")
    device = device or best_device()
    told = prediction_type or next(filter(None, (c.training.get("prediction_type") for c in concepts)), None)
    dtype = DTYPES[precision] if precision else best_dtype(device)
    small = low_memory or offload_blocks
    there = "cpu" if small or quantize else device  # the plain weights may not fit on the card
    opened = load(base, dtype=dtype, device=there, prediction_type=told)
    if quantize is not None:
        quantise(opened, quantize)
    if small:
        opened.offload(device, blocks=offload_blocks)
    elif quantize is not None:
        opened.to(device)
    return opened


def base_for(given: str | None, concepts: Iterable["ConceptInfo"]) -> str:
    """The base to load: the one that was given, else the one that the concepts were trained on.

    Raises:
        InputError: that one was a file or a folder elsewhere; a concept file keeps only the last part of its path.
    """
    from spectral_fusion.base.bundled import BUNDLED
    from spectral_fusion.base.default import DEFAULT

    if given is not None:
        return given
    named = next((concept for concept in concepts if concept.base_name), None)
    if named is None:
        return DEFAULT
    name = named.base_name
    is_file = name.endswith(".safetensors") or ("/" not in name and name not in BUNDLED)
    if is_file and not Path(name).expanduser().exists():
        raise InputError(f"concept {named.name!r} was trained on {name}, which is not here; give its path with --base")
    return name
