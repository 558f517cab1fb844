"""Prior distillation: the base's own predictions are kept, and preserved by training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from concepts import same_weights, weights_of
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.base.vocabulary import EVERYDAY
from spectral_fusion.concept import Concept, Library
from spectral_fusion.fusion import fuse
from spectral_fusion.toybox.tokens import make_tokenizer
from spectral_fusion.training import TrainConfig, train_concept
from spectral_fusion.training.distillation import Distillation, Predictions, distillation
from spectral_fusion.training.embeddings import first_embeddings
from spectral_fusion.training.neutral import DECOY, neutral_prompts
from spectral_fusion.training.randomness import generator
from training import draw_photos, resolved


def config(**changes: Any) -> TrainConfig:
    given: dict[str, Any] = {"name": "rex", "class_word": "dog", "rank": 4, "steps": 2, "batch_size": 2}
    given |= {"distillation_prompts": 3, "distillation_weight": 1.0}
    return resolved(TrainConfig(**given | changes), resolution=32)


@pytest.fixture
def kept(base: StableDiffusion) -> Iterator[Distillation]:
    with distillation(base, config(), Predictions()) as (found,):
        yield found


@torch.no_grad()
def error(base: StableDiffusion, found: Distillation) -> float:
    """Mean squared distance of what the base predicts from what was kept."""
    total = 0.0
    for example in found.examples:
        text = base.condition([example.caption]).embeds
        answer = base.unet(example.noisy[None], example.time, text, return_dict=False)[0][0]
        total += float((answer - example.target).square().mean())
    return total / len(found.examples)


def test_what_is_remembered_is_what_the_base_predicts(base: StableDiffusion, kept: Distillation) -> None:
    captions = [example.caption for example in kept.examples]
    assert len(set(captions) - {""}) == 3
    assert len({example.time for example in kept.examples}) > 9
    assert error(base, kept) < 1e-10


def test_decoys_are_gone_afterwards(base: StableDiffusion) -> None:
    before = weights_of(base)
    with distillation(base, config(), Predictions()) as (found,):
        decoys = base.triggers()
        assert decoys
        assert all(any(decoy in example.caption for example in found.examples) for decoy in decoys)
    assert base.triggers() == []
    assert same_weights(before, weights_of(base))


def test_nothing_is_rehearsed_where_no_prompts_are_wanted(base: StableDiffusion) -> None:
    with distillation(base, config(distillation_prompts=0), Predictions()) as found:
        assert found == []


def test_a_draw_depends_on_step_index_and_seed_alone(kept: Distillation) -> None:
    places = [(step, index) for step in range(8) for index in range(2)]
    drawn = [kept.draw(*place) for place in places]
    assert all(a is b for a, b in zip(drawn, [kept.draw(*place) for place in places], strict=True))
    other = Distillation(kept.examples, seed=1)
    assert any(a is not other.draw(*place) for a, place in zip(drawn, places, strict=True))


def test_the_adapted_base_keeps_to_what_it_rehearses(base: StableDiffusion, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")

    def drift(weight: float) -> float:
        settings = config(
            steps=20, learning_rate_unet=0.05, learning_rate_text_encoder=0.0, distillation_weight=weight, vectors=1
        )
        library = Library(tmp_path / str(weight))
        concept: Concept = train_concept(photos, settings, library=library, base=base)
        with distillation(base, config(seed=1, vectors=1), Predictions()) as (unseen,):
            fusion = fuse(base, {concept: 1.0})
            try:
                return error(base, unseen)
            finally:
                fusion.undo()

    without, with_rehearsal = drift(0.0), drift(8.0)
    assert with_rehearsal < without / 2


def test_prompts_use_the_words_that_a_base_knows() -> None:
    tokenizer = make_tokenizer()
    words = EVERYDAY.known_to(lambda word: len(tokenizer(word, add_special_tokens=False).input_ids) == 1)
    prompts = neutral_prompts(words, "dog", 40, generator(0), decoys=0.5)
    texts = [prompt.text.replace(DECOY, "") for prompt in prompts]
    assert all(len(tokenizer(text, add_special_tokens=False).input_ids) == len(text.split()) for text in texts)
    assert any("dog" in text for text in texts)
    assert any("dog" not in text for text in texts)
    assert 5 < sum(prompt.has_decoy for prompt in prompts) < 35
    assert neutral_prompts(words, "dog", 40, generator(0), decoys=0.5) == prompts


def test_triggers_begin_as_long_as_words_and_apart_from_each_other(base: StableDiffusion) -> None:
    rex, tom = (first_embeddings(base, config(name=name, vectors=2))["text_encoder"] for name in ("rex", "tom"))
    assert torch.equal(rex[0], tom[0])
    assert 0.5 < float(rex[1].norm() / rex[0].norm()) < 2
    assert abs(float(torch.cosine_similarity(rex[1], tom[1], dim=0))) < 0.5
