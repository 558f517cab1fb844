"""Rehearsal: the base's own predictions are remembered, and kept by training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from concepts import same_weights, weights_of
from spectral_fusion.base.prompt import known_triggers
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, Library
from spectral_fusion.fuse import fuse
from spectral_fusion.toybox.tokens import make_tokenizer
from spectral_fusion.train import TrainConfig, train_concept
from spectral_fusion.train.distillation import Rehearsal, rehearsal
from spectral_fusion.train.embeddings import first_embeddings
from spectral_fusion.train.model import encode_captions
from spectral_fusion.train.neutral import DECOY, neutral_prompts
from spectral_fusion.train.randomness import generator
from training import draw_photos


def config(**changes: Any) -> TrainConfig:
    given: dict[str, Any] = {"name": "rex", "class_word": "dog", "rank": 4, "steps": 2, "batch_size": 2}
    given |= {"distillation_prompts": 3, "distillation_weight": 1.0}
    return TrainConfig(**given | changes).resolved(resolution=32, prediction_type="epsilon", precision="fp32")


@pytest.fixture
def remembered(base: StableDiffusion) -> Iterator[Rehearsal]:
    with rehearsal(base, config()) as (found,):
        yield found


@torch.no_grad()
def error(base: StableDiffusion, found: Rehearsal) -> float:
    """Mean squared distance of what the base predicts from what is remembered."""
    total = 0.0
    for moment in found.moments:
        text = encode_captions(base, [moment.caption])
        answer = base.unet(moment.latents[None], moment.timestep, text, return_dict=False)[0][0]
        total += float((answer - moment.prediction).square().mean())
    return total / len(found.moments)


def test_what_is_remembered_is_what_the_base_predicts(base: StableDiffusion, remembered: Rehearsal) -> None:
    captions = [moment.caption for moment in remembered.moments]
    assert len(set(captions) - {""}) == 3
    assert len({moment.timestep for moment in remembered.moments}) > 9
    assert error(base, remembered) < 1e-10


def test_decoys_are_gone_afterwards(base: StableDiffusion) -> None:
    before = weights_of(base)
    with rehearsal(base, config()) as (found,):
        decoys = known_triggers(base)
        assert decoys
        assert all(any(decoy in moment.caption for moment in found.moments) for decoy in decoys)
    assert known_triggers(base) == []
    assert same_weights(before, weights_of(base))


def test_nothing_is_rehearsed_where_no_prompts_are_wanted(base: StableDiffusion) -> None:
    with rehearsal(base, config(distillation_prompts=0)) as found:
        assert found == []


def test_a_draw_depends_on_step_index_and_seed_alone(remembered: Rehearsal) -> None:
    places = [(step, index) for step in range(8) for index in range(2)]
    drawn = [remembered.draw(*place) for place in places]
    assert all(a is b for a, b in zip(drawn, [remembered.draw(*place) for place in places], strict=True))
    other = Rehearsal(remembered.moments, seed=1)
    assert any(a is not other.draw(*place) for a, place in zip(drawn, places, strict=True))


def test_the_adapted_base_keeps_to_what_it_rehearses(base: StableDiffusion, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")

    def drift(weight: float) -> float:
        settings = config(
            steps=20, learning_rate_unet=0.05, learning_rate_text_encoder=0.0, distillation_weight=weight, vectors=1
        )
        library = Library(tmp_path / str(weight))
        concept: Concept = train_concept(photos, settings, library=library, base=base)
        with rehearsal(base, config(seed=1, vectors=1)) as (unseen,):
            fusion = fuse(base, {concept: 1.0})
            try:
                return error(base, unseen)
            finally:
                fusion.undo()

    without, with_rehearsal = drift(0.0), drift(8.0)
    assert with_rehearsal < without / 2


def test_prompts_use_the_words_that_a_base_knows() -> None:
    tokenizer = make_tokenizer()
    prompts = neutral_prompts(tokenizer, "dog", 40, generator(0), decoys=0.5)
    texts = [prompt.text.replace(DECOY, "") for prompt in prompts]
    assert all(len(tokenizer(text, add_special_tokens=False).input_ids) == len(text.split()) for text in texts)
    assert any("dog" in text for text in texts)
    assert any("dog" not in text for text in texts)
    assert 5 < sum(prompt.has_decoy for prompt in prompts) < 35
    assert neutral_prompts(tokenizer, "dog", 40, generator(0), decoys=0.5) == prompts


def test_triggers_begin_as_long_as_words_and_apart_from_each_other(base: StableDiffusion) -> None:
    rex, tom = (first_embeddings(base, config(name=name, vectors=2)) for name in ("rex", "tom"))
    assert torch.equal(rex[0], tom[0])
    assert 0.5 < float(rex[1].norm() / rex[0].norm()) < 2
    assert abs(float(torch.cosine_similarity(rex[1], tom[1], dim=0))) < 0.5
