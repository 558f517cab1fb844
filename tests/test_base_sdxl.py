"""Stable Diffusion XL as a base: what it computes is what the stock pipeline computes."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from spectral_fusion.base.condition import Condition, Frame
from spectral_fusion.base.load import open_base
from spectral_fusion.base.samplers import make_sampler
from spectral_fusion.base.sdxl import StableDiffusionXL
from spectral_fusion.errors import InputError
from tiny_sdxl import WIDTHS, tiny_sdxl

PROMPTS = ["a photo of a red dog", "ugly"]
LONG = "a photo of a red dog on grass and a blue cat on sand, " * 8


@pytest.fixture(scope="module")
def shared() -> StableDiffusionXL:
    return StableDiffusionXL(tiny_sdxl())


@pytest.fixture
def base() -> StableDiffusionXL:
    return StableDiffusionXL(tiny_sdxl())


def draw(base: StableDiffusionXL, prompts: list[str] = PROMPTS, sampler: str = "Euler") -> Tensor:
    """Latents of the first prompt, the second being the negative one."""
    condition = base.condition(prompts, weighted=True)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    steps = base.denoise(condition[:1], noise, sampler=sampler, steps=3, uncondition=condition[1:2], guidance_scale=5.0)
    return list(steps)[-1].latents


def stock(pipeline: StableDiffusionXLPipeline, prompts: list[str] = PROMPTS) -> Tensor:
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    size = {"height": 32, "width": 32, "num_inference_steps": 3, "guidance_scale": 5.0}
    return pipeline(prompts[0], negative_prompt=prompts[1], latents=noise, output_type="latent", **size).images


def close(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() <= 1e-5 * second.abs().max())


def test_it_draws_what_the_stock_pipeline_draws(shared: StableDiffusionXL) -> None:
    assert close(draw(shared), stock(shared.pipeline))
    assert shared.decode(draw(shared))[0].size == (32, 32)


@pytest.mark.parametrize("weighted", [True, False])
def test_both_texts_and_the_pooled_one(shared: StableDiffusionXL, weighted: bool) -> None:
    condition = shared.condition(PROMPTS, weighted=weighted)
    words, negative, pooled, negative_pooled = shared.pipeline.encode_prompt(
        PROMPTS[0], negative_prompt=PROMPTS[1], device="cpu"
    )
    assert condition.pooled is not None
    assert close(condition.embeds, torch.cat([words, negative]))
    assert close(condition.pooled, torch.cat([pooled, negative_pooled]))


def test_prompts_of_any_length_and_weights(shared: StableDiffusionXL) -> None:
    condition = shared.condition([LONG, "a dog"])
    assert condition.embeds.shape == (2, 77 * max(shared.prompt_chunks([LONG])), sum(WIDTHS))
    assert condition.pooled is not None
    assert condition.pooled.shape == (2, WIDTHS[1])
    plain, strong = (shared.condition([text], weighted=True) for text in ("a red dog", "a (red:1.5) dog"))
    assert not torch.allclose(plain.embeds, strong.embeds)
    assert torch.equal(plain.pooled, strong.pooled)  # type: ignore[arg-type]


def test_a_condition_is_told_the_frame_of_each_picture(shared: StableDiffusionXL) -> None:
    condition = shared.condition(PROMPTS)
    frame = Frame((600, 800), (0, 12), (32, 32))
    framed = shared.framed(condition, [frame, None], (16, 16))
    assert framed.extra["time_ids"].tolist() == [[600, 800, 0, 12, 32, 32], [32, 32, 0, 0, 32, 32]]
    noisy, times = torch.randn(2, 4, 16, 16), torch.tensor([500, 500])
    told, whole = shared.predict(noisy, times, framed), shared.predict(noisy, times, condition)
    assert not torch.allclose(told[0], whole[0])
    assert torch.allclose(told[1], whole[1], atol=1e-6)
    both = Condition.cat([framed[:1], framed[1:]])
    assert torch.equal(both.extra["time_ids"], framed.extra["time_ids"])


def test_words_are_added_to_both_texts_and_forgotten(base: StableDiffusionXL) -> None:
    before = draw(base)
    generator = torch.Generator().manual_seed(0)
    rows = {part: torch.randn(2, width, generator=generator) for part, width in zip(base.texts, WIDTHS, strict=True)}
    base.add_words({"<rex>": rows})
    assert base.triggers() == ["<rex>"]
    prompts = ["a <rex> dog", "ugly"]
    assert close(draw(base, prompts), stock(base.pipeline, prompts))
    base.remove_words(["<rex>"])
    assert torch.equal(draw(base), before)
    with pytest.raises(InputError, match="embeddings of <rex> are for text_encoder"):
        base.check_words("<rex>", {"text_encoder": rows["text_encoder"]})


def test_the_pooled_text_is_read_at_the_end_whatever_words_are_new(base: StableDiffusionXL, tmp_path: Path) -> None:
    """Published configurations read it at the highest id, which would be the new word's."""
    wrong = tiny_sdxl()
    wrong.text_encoder_2.config.eos_token_id = wrong.text_encoder_2.text_model.eos_token_id = 2
    wrong.save_pretrained(tmp_path / "base")
    opened = open_base(tmp_path / "base")
    rows = {part: torch.zeros(1, width) for part, width in zip(base.texts, WIDTHS, strict=True)}
    for one in (base, opened):
        one.add_words({"<rex>": rows})
    expected, found = (one.condition(["a <rex> dog"]).pooled for one in (base, opened))
    assert torch.equal(expected, found)  # type: ignore[arg-type]


def test_sizes(shared: StableDiffusionXL) -> None:
    assert (shared.size, shared.multiple, shared.latent_shape(48, 32)) == (32, 8, (4, 24, 16))
    assert shared.decode(torch.zeros(1, 4, 24, 16))[0].size == (32, 48)


def test_v_prediction_and_zero_terminal_snr() -> None:
    base = StableDiffusionXL(tiny_sdxl(prediction_type="v_prediction", zero_snr=True))
    drawn = draw(base, sampler="DDIM")
    base.pipeline.scheduler = make_sampler(base.pipeline.scheduler.config, "DDIM")
    assert close(drawn, stock(base.pipeline))
    latents, noise = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 16, 16)
    noisy, target = base.problem(latents, noise, torch.tensor([999]))
    assert torch.allclose(noisy, noise, atol=1e-3)
    assert torch.allclose(target, -latents, atol=1e-3)
    assert base.min_snr_gamma == 0


@pytest.mark.parametrize("kind", ["refiner", "inpainting"])
def test_refiners_and_inpainting_are_refused_by_name(kind: str) -> None:
    pipeline = tiny_sdxl()
    if kind == "refiner":
        pipeline.text_encoder = pipeline.tokenizer = None
    else:
        pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(InputError, match=kind):
        StableDiffusionXL(pipeline)


def test_a_folder_is_saved_and_opened(base: StableDiffusionXL, tmp_path: Path) -> None:
    base.save(str(tmp_path / "base"))
    opened = open_base(tmp_path / "base")
    assert isinstance(opened, StableDiffusionXL)
    assert torch.equal(draw(opened), draw(base))


def test_cast_to_half_precision_but_the_autoencoder(base: StableDiffusionXL) -> None:
    weight = base.vae.decoder.conv_in.weight.clone()
    base.cast(torch.bfloat16)
    assert {part.dtype for part in base.parts.values()} == {torch.bfloat16}
    assert torch.equal(base.vae.decoder.conv_in.weight, weight)
    assert draw(base).isfinite().all()
    assert base.decode(draw(base))[0].size == (32, 32)
    assert base.encode(torch.zeros(1, 3, 32, 32)).mean.dtype == torch.float32


def test_presets_of_the_full_size(shared: StableDiffusionXL) -> None:
    assert shared.presets("additive", "balanced")["resolution"] == 32
    shared_size = StableDiffusionXL(tiny_sdxl())
    shared_size.unet.register_to_config(sample_size=512)
    chosen = shared_size.presets("additive", "balanced")
    assert (chosen["resolution"], chosen["batch_size"], chosen["noise_offset"]) == (1024, 1, 0.0)
    assert (chosen["learning_rate_unet"], chosen["learning_rate_text_encoder"]) == (1e-4, 1e-5)
