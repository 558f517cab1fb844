"""Bands are those of the checkpoint, in whatever precision a concept is trained."""

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from torch import nn

from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.concept import Library
from spectral_fusion.concept.joint import measure_overlaps
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.spectral import Band, Triplets, decompose
from spectral_fusion.training import TrainConfig, train_concept
from tiny import tiny_base
from training import draw_photos

PRECISIONS = ("fp32", "bf16", "fp16")
ROUNDING = 1e-3  # overlap that rounding of the saved vectors to float16 amounts to


@pytest.mark.parametrize("side", ["top", "bottom"])
def test_concepts_trained_in_three_precisions_stay_disjoint(tmp_path: Path, side: str) -> None:
    base, library = tmp_path / "base", Library(tmp_path / "library")
    tiny_base().pipeline.save_pretrained(base)
    photos = draw_photos(tmp_path / "photos")
    for precision in PRECISIONS:
        config = TrainConfig(
            name=precision,
            class_word="dog",
            base=str(base),
            precision=precision,
            band_side=side,
            rank=4,
            steps=2,
            distillation_prompts=0,
            with_concepts=("none",),
        )
        train_concept(photos, config, library=library)
    concepts = [library.get(name) for name in PRECISIONS]
    assert [concept.band for concept in concepts] == [Band(i, 4, side) for i in range(3)]
    assert max(overlap.value for overlap in measure_overlaps(concepts)) < ROUNDING
    fuse(tiny_base(), dict.fromkeys(concepts, 1.0))


def test_a_model_that_was_cast_takes_the_bands_of_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 40), nn.Conv2d(6, 10, 3))
    expected = decompose({name: layer.weight for name, layer in model.named_children()}, Band(1, 4))
    config = SpectralConfig(r=4, band=1, target_modules=["0", "1"], init_basis=expected)
    adapted = get_peft_model(model.bfloat16(), config)
    for name, basis in expected.items():
        layer = adapted.base_model.model.get_submodule(name)
        found = Triplets(*(getattr(layer, part)["default"] for part in layer.basis_names))
        assert all(torch.equal(a, b) for a, b in zip(found, basis, strict=True))
        assert not any(a.data_ptr() == b.data_ptr() for a, b in zip(found, basis, strict=True))
    assert adapted.peft_config["default"].to_dict()["init_basis"] is False


@pytest.mark.parametrize("wrong", ["no such layer", "another rank", "another layer's"])
def test_bands_that_do_not_fit_the_model_are_refused(wrong: str) -> None:
    model = nn.Sequential(nn.Linear(12, 9))
    bases = decompose({"0": model[0].weight}, Band(0, 4))
    bases = {
        "no such layer": {},
        "another rank": decompose({"0": model[0].weight}, Band(0, 3)),
        "another layer's": {"0": Triplets(bases["0"].V, bases["0"].S, bases["0"].U)},
    }[wrong]
    with pytest.raises(InputError, match="init_basis"):
        get_peft_model(model, SpectralConfig(r=4, target_modules=["0"], init_basis=bases))
    get_peft_model(model, SpectralConfig(r=4, target_modules=["0"]))
