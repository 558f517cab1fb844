"""Transformers of flow matching from photos to other programs, and what they compute beside the stock pipelines."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from spectral_fusion.base.attach import attach, detach
from spectral_fusion.base.flow import FLOW_SAMPLERS, FlowTransformer, shift_of_length, shifted
from spectral_fusion.base.flux import Flux, pack, place_ids, unpack
from spectral_fusion.base.flux2 import Flux2Klein, places, squares, unsquare
from spectral_fusion.base.load import open_base
from spectral_fusion.base.sd3 import StableDiffusion3
from spectral_fusion.base.z_image import ZImage
from spectral_fusion.concept import Concept, export_embedding, export_lora
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.spectral import Band
from spectral_fusion.training import TrainConfig
from spectral_fusion.training.single import train
from tiny_flow import tiny_flux, tiny_klein, tiny_sd3, tiny_z_image
from training import draw_photos

PROMPT = "a <rex> dog on grass"
BASES: dict[str, tuple[Callable[[DiffusionPipeline], FlowTransformer], Callable[[], DiffusionPipeline]]] = {
    "sd3": (StableDiffusion3, tiny_sd3),
    "flux": (Flux, tiny_flux),
    "flux2-klein": (Flux2Klein, tiny_klein),
    "z-image": (ZImage, tiny_z_image),
}
FAMILIES = pytest.mark.parametrize("family", list(BASES))


def new_base(family: str) -> FlowTransformer:
    wrap, make = BASES[family]
    return wrap(make())


@pytest.fixture(scope="module")
def concepts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Concept]:
    return {family: trained(new_base(family), tmp_path_factory.mktemp(family)) for family in BASES}


def trained(base: FlowTransformer, folder: Path, **changes: Any) -> Concept:
    settings = {"rank": 4, "steps": 4, "batch_size": 2, "distillation_prompts": 2} | changes
    config = TrainConfig(name="rex", class_word="dog", learning_rate_unet=1e-2, **settings)
    config = config.resolved(base.presets(config.mode, config.preset), "fp32")
    assert config.vectors == 0
    assert config.cache_text
    return train(base, ImageFolder.scan(draw_photos(folder / "photos")), config, Band(0, 4))


def noise(base: FlowTransformer) -> Tensor:
    return torch.randn(1, *base.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))


def draw(base: FlowTransformer, prompt: str = PROMPT, negative: str = "") -> Tensor:
    told = base.condition([prompt, negative])
    steps = base.denoise(told[:1], noise(base), sampler="Euler", steps=3, uncondition=told[1:], guidance_scale=4.0)
    return list(steps)[-1].latents


def stock(base: FlowTransformer, prompt: str = PROMPT) -> Tensor:
    """Latents of the stock pipeline, as our denoiser sees them."""
    pipeline, latents = base.pipeline, noise(base)
    settings = {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 32, "width": 32, "output_type": "latent"}
    if base.family == "flux":
        return unpack(pipeline(prompt, latents=pack(latents), **settings).images, 16, 16)
    if base.family == "flux2-klein":  # its pipeline undoes the normalisation
        mean, deviation = base._normal  # type: ignore[attr-defined]
        return (squares(pipeline(prompt=prompt, latents=latents, **settings).images) - mean) / deviation
    if base.family == "z-image":  # its guidance counts from the conditional answer
        settings["guidance_scale"] = 3.0
    return pipeline(prompt, negative_prompt="", latents=latents, **settings).images


def close(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@FAMILIES
def test_it_draws_what_the_stock_pipeline_draws(family: str) -> None:
    base = new_base(family)
    close(draw(base), stock(base))
    assert base.decode(draw(base))[0].size == (32, 32)
    assert not torch.allclose(draw(base), draw(base, "a blue cat"), atol=1e-3)


@FAMILIES
def test_one_step_of_the_right_size_leads_from_noise_to_the_picture(family: str) -> None:
    base = new_base(family)
    latents, shares = torch.randn(2, 4, 16, 16), torch.tensor([1000, 250])
    noisy, target = base.problem(latents, torch.randn(2, 4, 16, 16), shares)
    close(noisy - target * (shares / 1000)[:, None, None, None], latents)


@FAMILIES
@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_samplers_lead_a_model_that_knows_the_answer_to_it(
    family: str, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = new_base(family)
    clean = torch.randn(noise(base).shape, generator=torch.Generator().manual_seed(1))
    told = base.condition(["a dog"])

    def knowing(noisy: Tensor, time: Tensor, _: Any) -> Tensor:
        return (noisy - clean) / (time / 1000).clamp(min=1e-3)

    monkeypatch.setattr(base, "predict", knowing)
    steps = base.denoise(told, noise(base), sampler=sampler, steps=10, generator=torch.Generator().manual_seed(0))
    assert (list(steps)[-1].latents - clean).abs().mean() < 0.05


def test_samplers_of_other_families_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="not for bases of the family sd3; choose one of: Euler"):
        new_base("sd3").scheduler("DDIM", (16, 16))
    with pytest.raises(InputError, match=r"did you mean 'DPM\+\+ 2M"):
        new_base("sd3").scheduler("DPM++ 2M Karras", (16, 16))


def test_times_are_logit_normal_and_shifted() -> None:
    base, source = new_base("sd3"), torch.Generator().manual_seed(0)
    times = [base.draw_time(source) / 1000 for _ in range(4000)]
    assert all(0 < time < 1 for time in times)
    assert statistics.median(times) == pytest.approx(shifted(0.5, 3.0), abs=0.02)
    assert shifted(0.5, 3.0) == 0.75
    assert base.even_times(2) == [pytest.approx(500.0), pytest.approx(900.0)]


def test_flux_shifts_by_the_size_of_the_picture() -> None:
    base = new_base("flux")
    assert base.shift((32, 32)) == pytest.approx(shift_of_length(256, {}))
    assert shift_of_length(256, {}) == pytest.approx(torch.tensor(0.5).exp().item())
    assert shift_of_length(4096, {}) == pytest.approx(torch.tensor(1.15).exp().item())
    assert base.shift((128, 128)) > base.shift((64, 64))


def test_flux_packs_as_its_pipeline_does() -> None:
    latents = torch.randn(2, 4, 6, 8)
    assert torch.equal(pack(latents), tiny_flux()._pack_latents(latents, 2, 4, 6, 8))
    assert torch.equal(unpack(pack(latents), 6, 8), latents)
    expected = tiny_flux()._prepare_latent_image_ids(1, 3, 4, "cpu", torch.float32)
    assert torch.equal(place_ids(3, 4).float(), expected)


def test_klein_packs_as_its_pipeline_does() -> None:
    pipeline, latents = tiny_klein(), torch.randn(2, 4, 6, 8)
    assert torch.equal(squares(latents), pipeline._patchify_latents(latents))
    assert torch.equal(unsquare(squares(latents)), latents)
    assert torch.equal(places(3, 4, 1), pipeline._prepare_latent_ids(squares(latents)[:1, :, :3, :4])[:, :12])
    assert torch.equal(places(1, 1, 5), pipeline._prepare_text_ids(torch.zeros(1, 5, 8)))


def test_what_klein_encodes_it_decodes_as_its_pipeline_does() -> None:
    base = Flux2Klein(tiny_klein())
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoded = base.encode(pixels)
    close(encoded.mean, base.pipeline._encode_vae_image(pixels, torch.Generator()))
    assert encoded.mean.shape[1:] == base.latent_shape(32, 32)


def test_distilled_klein_takes_no_guidance() -> None:
    base = Flux2Klein(tiny_klein(distilled=True))
    told = base.condition(["a dog", ""])
    steps = base.denoise(told[:1], noise(base), sampler="Euler", steps=2, uncondition=told[1:], guidance_scale=9.0)
    assert all(step.unconditional is None for step in steps)


def test_prompts_of_z_image_keep_their_own_lengths() -> None:
    base = ZImage(tiny_z_image())
    told = base.condition(["a dog", "a photo of a red dog on grass"])
    assert told.extra["mask"].sum(1).tolist()[0] < told.extra["mask"].sum(1).tolist()[1]
    noisy, times = noise(base).expand(2, -1, -1, -1), torch.tensor([500, 500])
    both = base.predict(noisy, times, told)
    close(both[:1], base.predict(noisy[:1], times[:1], base.condition(["a dog"])))


@FAMILIES
def test_trained_saved_and_loaded(concepts: dict[str, Concept], family: str, tmp_path: Path) -> None:
    rex = concepts[family]
    assert (rex.family, rex.embeddings) == (family, {})
    assert {layer.partition(".")[0] for layer in rex.layers} == {"transformer"}
    assert all(layer.split(".")[-2] in ("attn", "attention", "to_out") for layer in rex.layers)
    assert max(rex.factors(layer).up.abs().max() for layer in rex.layers) > 0
    loaded = Concept.load(rex.save(tmp_path / "rex.safetensors", dtype=torch.float32))
    assert loaded.family == family
    assert all(torch.equal(rex.factors(layer).up, loaded.factors(layer).up) for layer in rex.layers)


@FAMILIES
def test_attached_equals_fused_and_both_are_undone(concepts: dict[str, Concept], family: str) -> None:
    base, rex = new_base(family), concepts[family]
    plain = draw(base)
    attach(base, rex, 0.9)
    attached = draw(base)
    assert base.triggers() == ["<rex>"]
    detach(base, rex)
    fusion = fuse(base, {rex: 0.9})
    close(draw(base), attached)
    (drawn,) = generate(base, GenerateConfig(PROMPT, num_inference_steps=2, sampler="Euler"))
    assert drawn.image.size == (32, 32)
    fusion.undo()
    assert base.triggers() == []
    assert torch.equal(draw(base), plain)
    assert not torch.allclose(attached, plain, atol=1e-4)


@FAMILIES
def test_an_export_draws_the_same_in_the_stock_pipeline(
    concepts: dict[str, Concept], family: str, tmp_path: Path
) -> None:
    rex, plain, base = concepts[family], new_base(family), new_base(family)
    plain.pipeline.load_lora_weights(str(export_lora({rex: 0.9}, tmp_path / "rex.safetensors")))
    attach(base, rex, 0.9)
    close(stock(plain), draw(base))
    with pytest.raises(InputError, match="not written in kohya's names"):
        export_lora({rex: 1.0}, tmp_path / "kohya.safetensors", "kohya")
    with pytest.raises(InputError, match="no vectors of its own"):
        export_embedding(rex, tmp_path / "embedding.safetensors")


@FAMILIES
def test_a_folder_is_saved_and_opened(concepts: dict[str, Concept], family: str, tmp_path: Path) -> None:
    base = new_base(family)
    fuse(base, {concepts[family]: 1.0}).save(tmp_path / "fused")
    opened = open_base(tmp_path / "fused")
    assert opened.family == family
    close(draw(opened), draw(base))  # type: ignore[arg-type]


@FAMILIES
def test_triggers_that_are_not_there_are_refused(family: str) -> None:
    base = new_base(family)
    with pytest.raises(InputError, match="the prompt names <rex>"):
        generate(base, GenerateConfig("a <rex> dog", num_inference_steps=1, sampler="Euler"))
    with pytest.raises(InputError, match="nothing to remove"):
        base.remove_words(["<rex>"])
    base.add_words({"<rex>": {}})
    with pytest.raises(InputError, match="on this base already"):
        base.add_words({"<rex>": {}})


@FAMILIES
def test_routing_asks_the_family_with_a_sampler_of_its_own(family: str, concepts: dict[str, Concept]) -> None:
    base, before = new_base(family), draw(new_base(family))
    fusion = fuse(base, {concepts[family]: 1.0}, reduce="routed")
    assert not torch.allclose(draw(base), before, atol=1e-4)
    fusion.undo()
    assert torch.equal(draw(base), before)
