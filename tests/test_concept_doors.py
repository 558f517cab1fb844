"""Concept files from anywhere: what cannot be one is refused before anything uses it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from concepts import make_concept
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, read_info
from spectral_fusion.errors import InputError
from test_concept_file import edit

PREFIX = "spectral_fusion."


@pytest.fixture
def file(shared_base: StableDiffusion, tmp_path: Path) -> Path:
    return make_concept(shared_base, train_s=True).save(tmp_path / "rex.safetensors", dtype=torch.float32)


def raw(path: Path, tensors: dict[str, dict[str, Any]], data: bytes, metadata: dict[str, str]) -> Path:
    """A safetensors file written by hand."""
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"fingerprints": "{}", "kernels": "{}"}, "adapts 0 layers"),
        ({"fingerprints": json.dumps({f"unet.a{i}": "0" * 16 + ":1" for i in range(20_000)})}, "adapts 20000 layers"),
        ({"training": "[" * 5000 + "]" * 5000}, "nested deeper"),
        ({"training": '{"a": ' * 50 + "1" + "}" * 50}, "nested deeper"),
        ({"training": '{"loss": 1e999}'}, "not finite"),
        ({"training": '{"steps": ' + "9" * 5000 + "}"}, "5000 digits"),
        ({"training": '{"a": "\\ud800"}'}, "surrogate"),
        ({"training": "[]"}, "no JSON object"),
        ({"kernels": '{"unet.x": [1e999, 1]}'}, "not finite"),
        ({"kernels": '{"unet.x": [1, 1]}'}, "has a kernel"),
        ({"directions": "131072"}, "no layer more than 16384"),
        ({"rank": "9" * 5000}, "no whole number"),
        ({"alpha": "1e300"}, "alpha 1e\\+300"),
        ({"class_word": "x" * 1_000_000}, "at most 200"),
        ({"base_name": "x" * 1_000_000}, "at most 1000"),
        ({"name": "\U00020000" * 64}, "192 bytes"),
    ],
)
def test_metadata_that_would_break_something_later(file: Path, metadata: dict[str, str], words: str) -> None:
    edit(file, metadata={PREFIX + key: value for key, value in metadata.items()})
    for read in (read_info, Concept.load):
        with pytest.raises(InputError, match=words) as caught:
            read(file)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("fingerprint", ["0" * 16 + ":+-.", "0" * 16 + ":1e999", "0" * 16 + ":..", "0" * 15 + ":1"])
def test_a_fingerprint_is_a_hash_and_a_number(file: Path, fingerprint: str) -> None:
    changed = dict.fromkeys(read_info(file).fingerprints, fingerprint)
    edit(file, metadata={PREFIX + "fingerprints": json.dumps(changed)})
    with pytest.raises(InputError, match="fingerprint"):
        Concept.load(file)


def test_a_trigger_has_at_most_1024_vectors(file: Path) -> None:
    edit(file, tensors={"embeddings.text_encoder": torch.zeros(1025, 32)})
    with pytest.raises(InputError, match="n at most 1024"):
        Concept.load(file)


@pytest.mark.parametrize("part", ["U", "S", "V", "A", "B", "c"])
@pytest.mark.parametrize("shape", [(), (0,), (4,), (4, 0), (2, 2, 2), (1,)])
def test_tensors_of_any_number_of_sides_are_refused(file: Path, part: str, shape: tuple[int, ...]) -> None:
    key = f"{next(iter(read_info(file).fingerprints))}.{part}"
    if load_file(file)[key].shape == shape:
        pytest.skip("the right shape")
    edit(file, tensors={key: torch.zeros(shape)})
    with pytest.raises(InputError, match="shape"):
        Concept.load(file)


@pytest.mark.parametrize("side", [2**63, 2**62, 2**40])
def test_an_impossible_side_beside_a_zero(tmp_path: Path, side: int) -> None:
    tensors = {"unet.a.U": {"dtype": "F32", "shape": [side, 0], "data_offsets": [0, 0]}}
    path = raw(tmp_path / "a.safetensors", tensors, b"", {PREFIX + "format_version": "1"})
    for read in (read_info, Concept.load):
        with pytest.raises(InputError, match=r"a\.safetensors"):
            read(path)


def test_a_header_of_a_gigabyte_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="no safetensors file"):
        read_info(path)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["lora_unet_a.lokr_w1", "lora_unet_a.lokr_w2", "lora_unet_a.alpha"], "a LoKr"),
        (["lora_unet_a.hada_w1_a", "lora_unet_a.alpha"], "a LoHa"),
        (["lora_unet_a.oft_blocks", "lora_unet_a.alpha"], "an OFT"),
        (["base_model.model.unet.a.oft_R"], "an OFT"),
        (["clip_l", "clip_g"], "an embedding for Stable Diffusion XL"),
        (["unet.mid.to_q.U", "unet.mid.to_q.A", "embeddings"], "a concept that has lost its metadata"),
        (["lora_unet_a.lora_up.weight"], "a LoRA"),
        (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
        (["double_blocks.0.img_attn.qkv.weight"], "another family"),
        (["conditioner.embedders.0.a"], "Stable Diffusion XL"),
        (["decoder.conv_in.weight"], "an autoencoder"),
        (["text_model.encoder.layers.0.a"], "a text encoder"),
        (["emb_params"], "a textual-inversion embedding"),
        ([], "without tensors"),
        (["a", "b"], "some other safetensors file"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path: Path, keys: list[str], words: str) -> None:
    save_file({key: torch.zeros(1, 2) for key in keys}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=f"{words}.*not a concept"):
        read_info(tmp_path / "a.safetensors")
