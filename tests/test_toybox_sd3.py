"""The miniature transformer: a stock pipeline in the package, judged by toybox128's scorers, and how it is trained."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from transformers import CLIPTextModel

from spectral_fusion import toybox128
from spectral_fusion.base.bundled import BUNDLED
from spectral_fusion.base.load import open_base
from spectral_fusion.base.sd3 import StableDiffusion3
from spectral_fusion.evaluate import load_scorers
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.toybox128 import scorers
from spectral_fusion.toybox_sd3 import FINGERPRINT, T5_TOKENS, WEIGHTS, data, models
from spectral_fusion.toybox_sd3.attention import WrittenOut
from spectral_fusion.toybox_sd3.stages import spread_shares


@pytest.fixture(scope="module")
def base() -> StableDiffusion3:
    opened = open_base("toybox-sd3")
    assert isinstance(opened, StableDiffusion3)
    return opened


@pytest.fixture(scope="module")
def stock() -> StableDiffusion3Pipeline:
    pipeline = StableDiffusion3Pipeline.from_pretrained(WEIGHTS, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_is_known_by_its_weights_and_judged_as_toybox128_is(base: StableDiffusion3) -> None:
    assert base.fingerprint == FINGERPRINT
    assert base.bundled is BUNDLED["toybox-sd3"]
    assert load_scorers(base) is scorers
    assert (base.size, base.latent_shape(128, 128)) == (128, (12, 16, 16))
    assert all(left.right <= right.left + 1e-9 for left, right in pairwise(base.places(3)))


def test_its_files_are_of_at_most_forty_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 40 * 2**20


def test_it_draws_as_the_stock_pipeline_does(base: StableDiffusion3, stock: StableDiffusion3Pipeline) -> None:
    prompt = "a photo of a red house on grass"
    noise = torch.randn(1, 12, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told, untold = base.condition([prompt]), base.condition([""])
        *_, last = base.denoise(told, noise, sampler="Euler", steps=6, uncondition=untold, guidance_scale=3.0)
    drawn = stock(
        prompt,
        latents=noise,
        num_inference_steps=6,
        guidance_scale=3.0,
        max_sequence_length=T5_TOKENS,
        output_type="latent",
    ).images
    assert (last.latents - drawn).abs().max() < 1e-4


def test_places_are_where_the_prompt_says(base: StableDiffusion3) -> None:
    """Not what stands there: see its card."""
    places = {"on grass": "grass", "in the snow": "snow", "at night": "night"}
    images = [
        generate(base, GenerateConfig(f"a photo of a red car {words}", num_inference_steps=12, guidance_scale=3.0))
        for words in places
    ]
    seen = [place for place, _ in scorers.find_things([pictures[0].image for pictures in images])]
    assert seen == list(places.values())


def test_one_token_of_zeros_that_weighs_as_many_is_the_same_as_all(stock: StableDiffusion3Pipeline) -> None:
    words, _, pooled, _ = stock.encode_prompt(["a red cat"], None, None, do_classifier_free_guidance=False)
    assert not words[:, models.MAX_LENGTH :].any()
    told = {"timestep": torch.tensor([500.0]), "pooled_projections": pooled, "return_dict": False}
    noisy = torch.randn(1, 12, 16, 16, generator=torch.Generator().manual_seed(1))
    own = stock.transformer.attn_processors
    with torch.no_grad():
        whole = stock.transformer(hidden_states=noisy, encoder_hidden_states=words, **told)[0]
        stock.transformer.set_attn_processor(WrittenOut())
        short = words[:, : models.MAX_LENGTH + 1]
        folded = stock.transformer(hidden_states=noisy, encoder_hidden_states=short, **told)[0]
        stock.transformer.set_attn_processor(own)
    assert (whole - folded).abs().max() < 1e-4


def test_training_reads_text_as_the_pipeline_does(stock: StableDiffusion3Pipeline) -> None:
    text = "a photo of a <kit> cat and a green robot with a hat in a room"
    words, _, pooled, _ = stock.encode_prompt([text], None, None, do_classifier_free_guidance=False)
    own, own_pooled = models.both_readings(stock.text_encoder, data.tokenize([text]))
    assert (words[:, : models.MAX_LENGTH] - own).abs().max() < 1e-4
    assert (pooled - own_pooled).abs().max() < 1e-4


def test_scaled_encoders_say_the_same() -> None:
    trained = CLIPTextModel.from_pretrained(toybox128.WEIGHTS / "text_encoder", dtype=torch.float32)
    tokens = data.tokenize(["a photo of a red cat on grass"])
    with torch.no_grad():
        before = trained(tokens, output_hidden_states=True)
        after = models.frozen_encoder(trained, models.DEEP)(tokens, output_hidden_states=True)
    scale = models.SCALES[models.DEEP]
    assert torch.allclose(before.hidden_states[-2] * scale, after.hidden_states[-2], atol=1e-4)
    assert torch.allclose(before.last_hidden_state, after.last_hidden_state, atol=1e-3)


def test_made_up_words_are_told_apart() -> None:
    trained = CLIPTextModel.from_pretrained(toybox128.WEIGHTS / "text_encoder", dtype=torch.float32)
    plain = trained.get_input_embeddings().weight.detach()
    rows = models.with_rare_words(plain)
    word, other = (models.make_tokenizer().convert_tokens_to_ids(piece) for piece in ("cat</w>", "m</w>"))
    assert torch.equal(rows[word], plain[word])
    assert plain[other].norm() < 0.3 < 2 < rows[other].norm()


def test_shares_of_noise_are_spread_and_lean_to_noise() -> None:
    shares = spread_shares(512, torch.Generator().manual_seed(0))
    assert 0 < shares.min() < 0.1
    assert 0.9 < shares.max() < 1
    middle = models.SHIFT / (1 + models.SHIFT)  # of a logit-normal share, whose median is a half
    assert shares.median().item() == pytest.approx(middle, abs=0.02)


def test_captions_fit_and_some_name_things_by_made_up_words() -> None:
    rng = random.Random(0)
    records = [data.captioned_record(rng, 10**6) for _ in range(60)]
    assert {record["pixels"].shape for record in records} == {(3, 128, 128)}
    assert records[0]["cells"].shape == (3, 16, 16)
    end = models.make_tokenizer().eos_token_id
    whole = [bool((row == end).any()) for record in records for row in record["tokens"]]
    assert sum(whole) == len(whole)
    named = [data.with_made_up_word("a photo of a red cat", rng) for _ in range(200)]
    assert 10 < sum("<" in text for text in named) < 60


def test_pack_gives_a_folder_that_opens(tmp_path: Path) -> None:
    from spectral_fusion.toybox_sd3.train import pack

    models.make_transformer(heads=2, blocks=1).save_pretrained(tmp_path / "transformer")
    other = open_base(pack(tmp_path))
    assert isinstance(other, StableDiffusion3)
    assert other.bundled is None
    assert other.condition(["a cat"]).embeds.shape[1] == models.MAX_LENGTH + 256
