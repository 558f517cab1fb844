"""Trainings that stop by themselves, and that keep the average of what they learned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, Library
from spectral_fusion.errors import InputError
from spectral_fusion.training import Progress, TrainConfig, train_concept
from spectral_fusion.training.stopping import Patience
from training import TINY_SETTINGS, draw_photos

Train = Callable[..., Concept]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


@pytest.fixture
def train(library: Library, base: StableDiffusion, tmp_path: Path) -> Train:
    """Trains on the tiny base; keyword arguments are settings, and `told` gets each step's progress."""
    photos = draw_photos(tmp_path / "photos")

    def run(told: list[Progress] | None = None, stop: int = 0, resume: bool = False, **given: Any) -> Concept:
        def note(progress: Progress) -> None:
            if told is not None:
                told.append(progress)
            if progress.step == stop:
                raise KeyboardInterrupt

        config = TrainConfig(**TINY_SETTINGS | given)
        return train_concept(photos, config, library=library, base=base, resume=resume, force=True, on_progress=note)

    return run


def tensors(concept: Concept) -> torch.Tensor:
    return torch.cat([value.flatten() for layer in concept.layers.values() for value in layer.trained.values()])


def test_patience_counts_measurements_without_gain() -> None:
    patience, over = Patience(2), []
    for loss in (1.0, 0.9, 0.9, 0.8, 0.8, 0.85):
        patience.measure(loss)
        over.append(patience.is_over)
    assert over == [False, False, False, False, False, True]
    assert not Patience(0, best=0.1, waited=100).is_over


def test_a_training_that_no_longer_gains_ends(train: Train) -> None:
    told: list[Progress] = []
    # So high a rate makes it worse.
    train(told, steps=50, learning_rate_unet=3.0, validate_every=1, early_stopping_patience=2)
    assert len(told) < 50
    assert [progress.is_over for progress in told] == [False] * (len(told) - 1) + [True]
    losses = [progress.probe_loss for progress in told]
    assert min(losses[-2:]) >= min(losses[:-2])


def test_one_that_gains_goes_on_to_its_last_step(train: Train) -> None:
    told: list[Progress] = []
    train(told, schedule="constant", validate_every=3, early_stopping_patience=2)
    assert len(told) == TINY_SETTINGS["steps"]
    assert not told[-1].is_over


def test_it_can_be_measured_on_pictures_that_are_not_learned(train: Train, tmp_path: Path) -> None:
    other = draw_photos(tmp_path / "other", 1, (64, 64))
    learned, held_out = [], []
    first = train(learned, validate_every=1)
    second = train(held_out, validate_every=1, validation_images=str(other))
    assert [p.probe_loss for p in learned] != [p.probe_loss for p in held_out]
    assert torch.equal(tensors(first), tensors(second))  # measuring changes nothing


def test_the_average_is_between_the_first_and_the_last_step(train: Train) -> None:
    last = tensors(train())
    average = tensors(train(ema_decay=0.9))
    assert 0 < average.norm() < last.norm()
    assert torch.nn.functional.cosine_similarity(average, last, dim=0) > 0.8


def test_no_averaging_leaves_the_file_as_it_always_was(train: Train, library: Library) -> None:
    train()
    first = library.path("rex").read_bytes()
    train(ema_decay=0.0, early_stopping_patience=0)
    assert library.path("rex").read_bytes() == first
    assert "ema_decay" not in library.get("rex").training


@pytest.mark.parametrize("stop", [1, 4])
def test_stopped_and_resumed_it_ends_as_if_nothing_had_happened(train: Train, library: Library, stop: int) -> None:
    settings = {"ema_decay": 0.8, "validate_every": 1, "early_stopping_patience": 1}
    train(**settings)
    unbroken = library.path("rex").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train(stop=stop, **settings)
    train(resume=True, **settings)
    assert library.path("rex").read_bytes() == unbroken


@pytest.mark.parametrize("given", [{"early_stopping_patience": 3}, {"validation_images": "photos"}])
def test_what_counts_measurements_needs_some(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="validate-every"):
        TrainConfig(name="rex", class_word="dog", **given)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match="ema_decay"):
        TrainConfig(name="rex", class_word="dog", ema_decay=decay)


def test_validation_pictures_that_are_not_there_are_refused_before_training(train: Train) -> None:
    with pytest.raises(InputError, match="nowhere"):
        train(validate_every=1, validation_images="nowhere")
