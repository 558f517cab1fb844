"""Stable Diffusion XL from photos to other programs: trained, saved, attached, fused, drawn, exported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from spectral_fusion.base.attach import attach, detach
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.presets import ATTENTION
from spectral_fusion.base.regions import Region
from spectral_fusion.base.sdxl import StableDiffusionXL
from spectral_fusion.concept import Concept, export_embedding, export_lora
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.identify import identify
from spectral_fusion.spectral import Band
from spectral_fusion.training import TrainConfig
from spectral_fusion.training.data import frame_of
from spectral_fusion.training.single import train
from tiny import tiny_base
from tiny_sdxl import WIDTHS, tiny_sdxl
from training import draw_photos

PROMPT = "a <rex> dog on grass"
PARTS = ("unet", "text_encoder", "text_encoder_2")


def new_base(**settings: Any) -> StableDiffusionXL:
    return StableDiffusionXL(tiny_sdxl(**settings))


def trained(base: StableDiffusionXL, folder: Path, band: int = 0, name: str = "rex", **changes: Any) -> Concept:
    settings = {"rank": 4, "steps": 4, "batch_size": 2, "distillation_prompts": 2, "vectors": 2}
    settings |= {"learning_rate_text_encoder": 1e-2, "target": (*ATTENTION, "fc1")}
    config = TrainConfig(name=name, class_word="dog", **settings | changes)
    config = config.resolved(base.presets(config.mode, config.preset), "fp32")
    photos = draw_photos(folder / f"photos-{name}", size=(60, 40))
    return train(base, ImageFolder.scan(photos), config, Band(band, 4))


@pytest.fixture(scope="module")
def rex(tmp_path_factory: pytest.TempPathFactory) -> Concept:
    return trained(new_base(), tmp_path_factory.mktemp("rex"))


def picture(pipeline: StableDiffusionXLPipeline, prompt: str = PROMPT) -> Tensor:
    """What a stock pipeline makes of a prompt in two steps."""
    generator = torch.Generator().manual_seed(0)
    return pipeline(
        prompt, num_inference_steps=2, height=32, width=32, output_type="pt", generator=generator, guidance_scale=3.0
    ).images


def close(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_all_three_parts_and_both_texts_learn(rex: Concept) -> None:
    assert rex.family == "sdxl"
    assert {layer.partition(".")[0] for layer in rex.layers} == set(PARTS)
    assert {part: tuple(rows.shape) for part, rows in rex.embeddings.items()} == {
        "text_encoder": (2, WIDTHS[0]),
        "text_encoder_2": (2, WIDTHS[1]),
    }
    base = new_base()
    for part in PARTS:
        moved = [rex.factors(layer).up.abs().max() for layer in rex.layers if layer.startswith(f"{part}.")]
        assert max(moved) > 0, part
    for part, rows in rex.embeddings.items():
        assert not torch.allclose(rows[0], base.texts[part].word_embedding("dog")[0])


def test_training_is_told_the_frame_of_each_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[int]] = []
    predict = StableDiffusionXL.predict

    def spy(base: StableDiffusionXL, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        told.extend(condition.extra["time_ids"].tolist() if "time_ids" in condition.extra else [])
        return predict(base, noisy, times, condition)

    monkeypatch.setattr(StableDiffusionXL, "predict", spy)
    trained(new_base(), tmp_path, distillation_prompts=0, aspect_buckets=False)
    assert told
    assert all(numbers == [40, 60, 0, 8, 32, 32] for numbers in told)


def test_frames_of_crops() -> None:
    assert frame_of((60, 40), (32, 32), (0.5, 0.5), False).numbers == (40, 60, 0, 8, 32, 32)
    assert frame_of((60, 40), (32, 32), (0.0, 0.5), False).crop == (0, 0)
    assert frame_of((60, 40), (32, 32), (0.0, 0.5), True).crop == (0, 16)
    assert frame_of((40, 80), (64, 64), (0.5, 1.0), False).numbers == (80, 40, 64, 0, 64, 64)


def test_saved_and_loaded(rex: Concept, tmp_path: Path) -> None:
    loaded = Concept.load(rex.save(tmp_path / "rex.safetensors", dtype=torch.float32))
    assert loaded.family == "sdxl"
    for layer in rex.layers:
        assert torch.equal(rex.factors(layer).up, loaded.factors(layer).up)
    assert all(torch.equal(rows, loaded.embeddings[part]) for part, rows in rex.embeddings.items())
    with safe_open(tmp_path / "rex.safetensors", framework="pt") as file:
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-xl-v1-base/spectral-adapter"


def test_attached_equals_fused_and_both_are_undone(rex: Concept) -> None:
    base = new_base()
    plain = {name: weight.clone() for part in base.parts.values() for name, weight in part.state_dict().items()}
    attach(base, rex, 0.9)
    attached = picture(base.pipeline)
    detach(base, rex)
    fusion = fuse(base, {rex: 0.9})
    close(picture(base.pipeline), attached)
    fusion.undo()
    after = {name: weight for part in base.parts.values() for name, weight in part.state_dict().items()}
    assert plain.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in plain.items())


def test_two_concepts_with_regions(rex: Concept, tmp_path: Path) -> None:
    base = new_base()
    tom = trained(base, tmp_path, band=1, name="tom", seed=1)
    regions = (Region("a <rex> dog", (0, 0, 0.5, 1)), Region("a <tom> cat", (0.5, 0, 1, 1)))
    config = GenerateConfig("a dog and a cat", num_inference_steps=2, regions=regions, sampler="Euler")
    fuse(base, {rex: 1.0, tom: 0.8})
    (drawn,) = generate(base, config)
    (without,) = generate(base, GenerateConfig("a dog and a cat", num_inference_steps=2, sampler="Euler"))
    assert drawn.image.size == (32, 32)
    assert drawn.image.tobytes() != without.image.tobytes()


def test_generate_is_what_the_stock_pipeline_draws(rex: Concept) -> None:
    base = new_base()
    fuse(base, {rex: 1.0})
    (drawn,) = generate(base, GenerateConfig(PROMPT, num_inference_steps=2, sampler="Euler", guidance_scale=3.0))
    stock = base.pipeline(
        PROMPT,
        negative_prompt="",
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        height=32,
        width=32,
    ).images[0]
    difference = torch.tensor(list(drawn.image.tobytes())) - torch.tensor(list(stock.tobytes()))
    assert difference.abs().max() <= 1  # of 255: rounding


def exported(concept: Concept, folder: Path, to: str) -> StableDiffusionXLPipeline:
    """A stock pipeline that has loaded the exported files and nothing else."""
    pipeline = tiny_sdxl()
    embedding = load_file(export_embedding(concept, folder / "rex.safetensors"))
    assert set(embedding) == {"clip_l", "clip_g"}
    for ending, name in (("", "clip_l"), ("_2", "clip_g")):
        pipeline.load_textual_inversion(
            {concept.trigger: embedding[name]},
            token=concept.trigger,
            text_encoder=getattr(pipeline, f"text_encoder{ending}"),
            tokenizer=getattr(pipeline, f"tokenizer{ending}"),
        )
    pipeline.load_lora_weights(str(export_lora({concept: 0.9}, folder / f"{to}.safetensors", to)))
    return pipeline


@pytest.mark.parametrize("to", ["diffusers", "kohya"])
def test_exports_draw_the_same_in_the_stock_pipeline(rex: Concept, tmp_path: Path, to: str) -> None:
    base = new_base()
    attach(base, rex, 0.9)
    pipeline = exported(rex, tmp_path, to)
    for part in PARTS:
        assert any("lora_A" in name for name, _ in getattr(pipeline, part).named_modules()), part
    close(picture(pipeline), picture(base.pipeline))
    said = identify(tmp_path / f"{to}.safetensors")
    assert str(said) == "a LoRA for Stable Diffusion XL"
    assert str(identify(tmp_path / "rex.safetensors")) == "a textual-inversion embedding for Stable Diffusion XL"


def test_a_fused_folder_loads_in_the_stock_pipeline(rex: Concept, tmp_path: Path) -> None:
    base = new_base()
    fusion = fuse(base, {rex: 0.9})
    stock = StableDiffusionXLPipeline.from_pretrained(fusion.save(tmp_path / "fused"), add_watermarker=False)
    stock.set_progress_bar_config(disable=True)
    close(picture(stock), picture(base.pipeline))


def test_a_concept_on_another_family_is_refused(rex: Concept) -> None:
    with pytest.raises(InputError, match="trained on a base of family sdxl, this is sd"):
        attach(tiny_base(), rex)


def test_v_prediction_with_zero_terminal_snr_trains(tmp_path: Path) -> None:
    base = new_base(prediction_type="v_prediction", zero_snr=True)
    concept = trained(base, tmp_path, noise_offset=0.0)
    fuse(base, {concept: 1.0})
    (drawn,) = generate(base, GenerateConfig(PROMPT, num_inference_steps=2))
    assert drawn.image.size == (32, 32)
