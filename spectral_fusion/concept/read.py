"""Opening a concept file: finding it, reading its header and tensors, and saying what it is where it is none."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from spectral_fusion.atomic import write_safetensors
from spectral_fusion.concept.metadata import OURS, ConceptInfo, from_metadata, to_metadata
from spectral_fusion.errors import InputError

FILE_NAME = "concept.safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")  # the second byte; the first is 0x80


def read_info(path: str | Path) -> ConceptInfo:
    """The metadata of a concept file, without reading its tensors.

    Raises:
        InputError: the file is missing, broken, or not a concept (the message says what it is).
    """
    path = find_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata, keys = file.metadata() or {}, list(file.keys())
    except SafetensorError as error:
        raise _broken(path, error) from error
    if OURS + "format_version" not in metadata:
        raise InputError(f"{path} is {_kind(keys)}, not a concept; concepts carry spectral_fusion.* metadata")
    return from_metadata(metadata, str(path))


def rewrite(source: str | Path, target: str | Path, info: ConceptInfo) -> None:
    """Copy a concept file with other metadata, its tensors bit for bit; source and target may be the same file."""
    write_safetensors(Path(target), read_tensors(find_file(source)), to_metadata(info))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, as stored; raises InputError where it is broken."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise _broken(path, error) from error


def find_file(path: str | Path) -> Path:
    """A concept file, or the one in a concept's folder.

    Raises:
        InputError: there is none, or it is a pickle.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise InputError(f"no concept file at {path}; give a .safetensors file or the folder of a concept")
    if path.suffix.lower() in PICKLES:
        raise _is_pickle(path)
    return path


def _broken(path: Path, error: SafetensorError) -> InputError:
    """What to say of a file that safetensors refused, which may be a pickle under another name."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in PICKLE_PROTOCOLS):
        return _is_pickle(path)
    reason = str(error).splitlines()[0]
    return InputError(f"{path} ({path.stat().st_size} bytes) is empty, cut off or no safetensors file: {reason}")


def _is_pickle(path: Path) -> InputError:
    return InputError(f"{path} is a pickle, which can run any program when opened; get the .safetensors file")


def _kind(keys: list[str]) -> str:
    """What a safetensors file without our metadata is, from the names of its tensors."""
    if any("lora_" in key or ".lora." in key for key in keys):
        return "a LoRA (load it with load_lora_weights)"
    if any(key.startswith(("model.diffusion_model.", "down_blocks.", "first_stage_model.")) for key in keys):
        return "a base model (give it as --base)"
    if len(keys) == 1 or "emb_params" in keys:
        return "a textual-inversion embedding (load it with load_textual_inversion)"
    return "some other safetensors file"
