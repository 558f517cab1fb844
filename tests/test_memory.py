"""Memory predicted before anything is loaded."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from ldm import ldm_tensors, miniature
from spectral_fusion.base.outline import outline
from spectral_fusion.base.traced import AsOnDevice, LiveBytes, backward, bytes_of, tensors_of
from spectral_fusion.cli import app
from spectral_fusion.errors import InputError
from spectral_fusion.training import TrainConfig, fitting
from spectral_fusion.training.fitting import first_fit, flag_of, ladder, predicted
from spectral_fusion.training.memory import Prediction
from tiny import tiny_pipeline
from tiny_families import FAMILIES
from training import draw_photos


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_pipeline().save_pretrained(folder)
    return folder


def config(base: str | Path, **changes: Any) -> TrainConfig:
    settings = {"rank": 4, "batch_size": 2, "distillation_prompts": 0} | changes
    return TrainConfig(name="rex", class_word="dog", base=str(base), **settings)


def training_of(base: Path, **changes: Any) -> dict[str, int]:
    return dict(predicted(config(base, **changes), "gpu").phases["training"])


def test_the_most_that_is_alive_at_once_is_counted() -> None:
    start = torch.empty(100, device="meta")
    with LiveBytes([start]) as count:
        first = start + 1  # 400 bytes
        second = first * 2  # 800
        del first
        view = second[:50]  # nothing
        third = second - 1  # 800
        del third, second
        assert count.live == 400, "the view holds the whole storage"
        del view
    assert (count.live, count.peak) == (0, 800)


def test_attention_keeps_no_matrix_and_what_is_computed_again_is_seen() -> None:
    """A layer of attention in a checkpoint: its queries, keys, values and results, and their gradients, at the most."""
    from torch.utils.checkpoint import checkpoint

    tokens, width = 1000, 8

    def attend(x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    x = torch.empty(1, 1, tokens, width, device="meta", requires_grad=True)
    with AsOnDevice(torch.float32), LiveBytes([x]) as count:
        backward(checkpoint(attend, x, use_reentrant=False).sum())
    assert count.peak < 10 * tokens * width * 4 < tokens * tokens * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_predicted_from_its_configurations(family: str, tmp_path: Path) -> None:
    pipeline = FAMILIES[family]()
    pipeline.save_pretrained(tmp_path)
    for file in tmp_path.glob("*/*.safetensors"):
        file.unlink()
    base = outline(tmp_path)
    assert base.family == family
    models = [*base.parts.values(), *base.frozen]
    real = [model for model in pipeline.components.values() if isinstance(model, nn.Module)]
    assert sum(map(bytes_of, models)) == sum(map(bytes_of, real))
    assert all(tensor.is_meta for tensor in tensors_of(*base.parts.values()))
    found = predicted(config(tmp_path), "gpu")
    assert found.phases["training"]["activations"] > 0
    assert found.phases["encoding"]["activations"] > 0
    small = predicted(config(tmp_path, low_memory=True), "gpu")
    assert small.phases["training"]["activations"] < found.phases["training"]["activations"]
    assert small.phases["training"]["weights"] < found.phases["training"]["weights"]
    smallest = predicted(config(tmp_path, offload_blocks=True), "gpu")
    assert smallest.phases["training"]["weights"] < small.phases["training"]["weights"]
    assert smallest.phases["training"]["activations"] == small.phases["training"]["activations"]


def test_a_single_file_is_predicted_from_its_header(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    real = miniature()
    save_file({k: v.contiguous().clone() for k, v in ldm_tensors(real).items()}, tmp_path / "base.safetensors")
    shown = outline(tmp_path / "base.safetensors")
    for name, part in real.parts.items():
        assert {key: value.shape for key, value in part.state_dict().items()} == {
            key: value.shape for key, value in shown.parts[name].state_dict().items()
        }


def test_bands_adapters_and_states_are_those_of_the_formula(base: Path) -> None:
    shown = outline(base)
    edges = 0
    for name, layer in shown.layers().items():
        if name.startswith("unet.") and name.endswith(("attn2.to_k", "attn2.to_v")):
            edges += sum(layer.weight.shape)
    chosen: dict[str, Any] = {"target": ("attn2.to_k", "attn2.to_v")}
    found = training_of(base, **chosen)
    count = len([name for name in shown.layers() if name.endswith(("attn2.to_k", "attn2.to_v"))])
    assert found["bands"] == (edges + count) * 4 * 4
    assert found["adapters"] == 2 * edges * 4 * 4
    assert found["optimizer"] == found["adapters"]
    assert training_of(base, optimizer="adamw8bit", **chosen)["optimizer"] == edges * 4 * 4 // 2
    assert training_of(base, ema_decay=0.9, **chosen)["moving average"] == edges * 4 * 4


def test_a_cpu_keeps_freed_activations_in_its_heap(base: Path) -> None:
    """On a CPU a larger batch takes its activations and a quarter more; on a GPU a twentieth more."""
    for kind, share in (("cpu", 0.27), ("gpu", 0.05)):
        few, many = (predicted(config(base, batch_size=size), kind).phases["training"] for size in (2, 8))
        rest = sum(many.values()) - sum(few.values()) - (many["activations"] - few["activations"])
        assert rest == pytest.approx(share * (many["activations"] - few["activations"]), rel=0.01)


def test_what_takes_more_is_predicted_to_take_more(base: Path) -> None:
    plain = training_of(base)["activations"]
    assert 1.9 < training_of(base, batch_size=4)["activations"] / plain < 2.1
    assert training_of(base, batch_size=4, gradient_accumulation=2)["activations"] == plain
    assert 1.9 < training_of(base, distillation_prompts=4)["activations"] / plain < 2.1
    assert training_of(base, gradient_checkpointing=True)["activations"] < plain
    assert training_of(base, resolution=64)["activations"] > 3 * plain
    others = predicted(config(base), "gpu", others=True).phases["training"]
    assert others["merged weights"] > 0


def test_switches_are_tried_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def takes(config: TrainConfig, *_: Any, **__: Any) -> Prediction:
        size = 20 - 5 * config.gradient_checkpointing - 10 * config.low_memory - 2 * (config.resolution == 768)
        return Prediction({"training": {"weights": size}})

    monkeypatch.setattr(fitting, "predicted", takes)
    monkeypatch.setattr(fitting, "outline", lambda _: type("Base", (), {"size": 1024}))
    asked = config("somewhere", batch_size=1)
    flags = {room: fit and fit.flags for room in (20, 15, 10, 8, 7) for fit in [first_fit(asked, "gpu", room)]}
    assert flags[20] == ()
    assert flags[15] == ("--gradient-checkpointing",)
    assert flags[10] == ("--low-memory",)
    assert flags[8] == ("--low-memory", "--quantize nf4", "--resolution 768")
    assert flags[7] is None
    assert {"gradient_checkpointing": True} not in list(
        ladder(replace(asked, gradient_checkpointing=True), "gpu", batch=1, size=512)
    )
    assert flag_of("gradient_accumulation", 2) == "--gradient-accumulation 2"


def test_the_verb_says_what_takes_how_much(base: Path) -> None:
    line = ["memory", "--base", str(base), "--rank", "4", "--distillation-prompts", "0"]
    found = CliRunner().invoke(app, [*line, "--vram", "8", "0.001", "--json"])
    facts = json.loads(found.stdout)
    assert facts["cards"]["8"]["flags"] == []
    assert facts["cards"]["0.001"] is None
    assert facts["peak"] == sum(facts["phases"][facts["phase"]].values())
    shown = CliRunner().invoke(app, [*line, "--vram", "8"]).stdout
    assert "8 GB: fits as it is" in shown
    for odd in ("0", "-1", "nan", "inf", "1e30"):
        refused = CliRunner().invoke(app, [*line, "--vram", odd])
        assert refused.exit_code == 2


def test_a_base_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no diffusers folder"):
        outline(tmp_path / "empty")
    with pytest.raises(InputError, match="does not exist"):
        outline(tmp_path / "gone.safetensors")


def test_train_says_it_first_and_warns_where_it_does_not_fit(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import spectral_fusion.training.job as job

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "train_concept", stop)
    monkeypatch.setattr(fitting, "room_of", lambda _: 10)
    photos = draw_photos(tmp_path / "photos")
    line = ["train", str(photos), "--name", "rex", "--class", "dog", "--base", str(base), "--library", str(tmp_path)]
    said = CliRunner().invoke(app, [*line, "--rank", "4"]).stderr
    assert re.search(r"memory: about 0\.\d GB at the most", said)
    assert "no switch makes it fit" in said
