"""Folders of diffusers whose settings are damaged, of the wrong kind, or no files: one line at once."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spectral_fusion.base.load import open_base
from spectral_fusion.base.load_control import open_controlnet
from spectral_fusion.base.outline import outline
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from spectral_fusion.identify import read_header
from tiny import tiny_controlnet

DEEP = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"


def refused(task: Any) -> str:
    with pytest.raises(InputError) as caught:
        task()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.fixture(scope="module")
def saved(shared_base: StableDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    shared_base.pipeline.save_pretrained(folder / "base")
    tiny_controlnet(shared_base.unet).save_pretrained(folder / "net")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """Links to the weights, and settings of the test's own."""
    for file in saved.rglob("*"):
        place = tmp_path / file.relative_to(saved)
        if file.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file) if file.suffix == ".safetensors" else place.write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "text", ["[]", "null", '"x"', "3", "{}", "", DEEP, '{"_class_name": ["a"]}', '{"_class_name": {}}']
)
@pytest.mark.parametrize("file", ["base/model_index.json", "net/config.json"])
def test_settings_that_are_no_settings(shared_base: StableDiffusion, folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text, encoding="utf-8")
    if file.startswith("net"):
        refused(lambda: open_controlnet(folder / "net", shared_base))
    else:
        refused(lambda: open_base(folder / "base"))
        refused(lambda: outline(folder / "base"))


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "utf-16"])
def test_settings_that_are_no_file(shared_base: StableDiffusion, folder: Path, kind: str) -> None:
    for file in (folder / "net" / "config.json", folder / "base" / "model_index.json"):
        text = file.read_text(encoding="utf-8")
        file.unlink()
        if kind == "folder":
            file.mkdir()
        elif kind == "pipe":
            os.mkfifo(file)
        elif kind == "loop":
            file.symlink_to(file)
        else:
            file.write_bytes(text.encode("utf-16-le"))
    refused(lambda: open_controlnet(folder / "net", shared_base))
    refused(lambda: open_base(folder / "base"))


@pytest.mark.parametrize(
    "values",
    [
        {"conditioning_embedding_out_channels": 1e308},
        {"downsample_padding": {}},
        {"downsample_padding": None},
        {"encoder_hid_dim": True},
        {"mid_block_scale_factor": "x"},
        {"num_attention_heads": 10**30},
    ],
    ids=str,
)
def test_a_controlnet_whose_settings_fit_no_picture(
    shared_base: StableDiffusion, folder: Path, values: dict[str, Any]
) -> None:
    """Once some of these failed in the middle of a picture."""
    changed(folder / "net" / "config.json", **values)
    assert "ControlNet" in refused(lambda: open_controlnet(folder / "net", shared_base))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer/tokenizer.json", {"normalizer": "x"}),  # tokenizers raises a bare Exception
        ("tokenizer/tokenizer.json", {"padding": True}),
        ("text_encoder/config.json", {"vocab_size": []}),
        ("text_encoder/config.json", {"bos_token_id": "x"}),
        ("vae/config.json", {"scaling_factor": 10**30}),
        ("vae/config.json", {"scaling_factor": "x"}),
        ("vae/config.json", {"scaling_factor": 0}),
        ("scheduler/scheduler_config.json", {"prediction_type": None}),
        ("scheduler/scheduler_config.json", {"prediction_type": [None]}),
        ("unet/config.json", {"quantization_config": 7}),
    ],
    ids=str,
)
def test_values_of_the_wrong_kind_are_found_when_the_base_is_loaded(
    folder: Path, file: str, values: dict[str, Any]
) -> None:
    changed(folder / "base" / file, **values)
    assert refused(lambda: open_base(folder / "base")).startswith("base ")


@pytest.mark.parametrize(
    ("ending", "tool"), [("weight.absmax", None), ("SCB", "bitsandbytes in int8"), ("weight._data", "quanto")]
)
def test_a_folder_whose_settings_hide_that_it_is_quantised(folder: Path, ending: str, tool: str | None) -> None:
    (file,) = (folder / "base" / "unet").glob("*.safetensors")
    tensors = load_file(file)
    file.unlink()  # a link
    save_file(tensors | {f"mid_block.attentions.0.proj_in.{ending}": torch.zeros(1)}, file)
    if tool is None:
        open_base(folder / "base")
        return
    assert f"quantised by {tool} (unet); its weights cannot be decomposed" in refused(
        lambda: open_base(folder / "base")
    )


@pytest.mark.parametrize("length", [None, {}, "x", -1, 10**30, 1000])
def test_a_tokenizer_without_a_usable_length_has_that_of_its_encoder(folder: Path, length: Any) -> None:
    """Lost settings of the tokenizer gave an OverflowError in the first prompt, and longer ones an error of torch."""
    changed(folder / "base" / "tokenizer" / "tokenizer_config.json", model_max_length=length)
    assert open_base(folder / "base").texts["text_encoder"].max_length == 77


@pytest.mark.parametrize(
    "header",
    [
        DEEP.encode(),
        b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[[],{}]}}',
        b'{"a":[]}',
        b"[]",
    ],
    ids=["deep", "infinite", "one offset", "offsets of other kinds", "no entry", "no table"],
)
def test_headers_of_single_files_that_are_no_headers(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    assert "not a readable safetensors file" in refused(lambda: read_header(tmp_path / "model.safetensors", "base"))
