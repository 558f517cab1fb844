"""Two rounds: no file depends on which concept came first, and none is of one round alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from concepts import same_weights, weights_of
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.spectral import Band
from spectral_fusion.training import TrainConfig
from spectral_fusion.training.single import TrainingContext, train
from spectral_fusion.training.together import Subject, train_together
from training import draw_photos, resolved


@pytest.fixture
def subjects(tmp_path: Path) -> list[Subject]:
    made = []
    for band, (name, word) in enumerate({"rex": "dog", "tom": "cat", "kit": "cat"}.items()):
        config = TrainConfig(name=name, class_word=word, rank=2, steps=4, batch_size=1, distillation_prompts=2)
        images = ImageFolder.scan(draw_photos(tmp_path / name, 2 + band))
        made.append(Subject(images, resolved(config), Band(band, 2), {"steps": 4}))
    return made


def same(first: Concept, second: Concept) -> bool:
    pairs = [
        (first.layers[n].tensors()[p], t) for n, layer in second.layers.items() for p, t in layer.tensors().items()
    ]
    pairs += [(first.embeddings[part], rows) for part, rows in second.embeddings.items()]
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_order_changes_nothing_but_the_order(base: StableDiffusion, subjects: list[Subject]) -> None:
    before = weights_of(base)
    forwards = {concept.name: concept for concept in train_together(base, subjects)}
    backwards = {concept.name: concept for concept in train_together(base, subjects[::-1])}
    assert list(forwards) == ["rex", "tom", "kit"]
    assert list(backwards) == ["kit", "tom", "rex"]
    for name, concept in forwards.items():
        assert concept.training == {"steps": 4}
        assert same(concept, backwards[name])
    assert same_weights(before, weights_of(base))


def test_a_concept_depends_on_the_others_and_alone_on_none(base: StableDiffusion, subjects: list[Subject]) -> None:
    subjects = [replace(subject, config=replace(subject.config, steps=12)) for subject in subjects]
    (alone,) = train_together(base, subjects[:1])
    beside = train_together(base, subjects[:2])[0]
    assert not same(alone, beside)
    assert same(alone, train_together(base, subjects[:1])[0])


def test_a_training_goes_on_from_where_another_ended(base: StableDiffusion, subjects: list[Subject]) -> None:
    subject = subjects[0]
    first = train(base, subject.images, subject.config, subject.band)
    still = replace(subject.config, steps=1, learning_rate_unet=1e-12, learning_rate_embedding=1e-12)
    again = train(base, subject.images, still, subject.band, TrainingContext(start=first))
    for name, layer in first.layers.items():
        for part, tensor in layer.tensors().items():
            assert torch.allclose(again.layers[name].tensors()[part], tensor, atol=1e-9)
