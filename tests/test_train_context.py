"""Neighbours: a concept is trained beside those of its library, and leaves them and itself alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from concepts import make_concept, same_weights, weights_of
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, Library
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.training import Progress, TrainConfig, train_concept
from spectral_fusion.training.context import context_captions, contexts, settings_with
from spectral_fusion.training.folder import MOST, choose_context
from tiny import tiny_base
from training import TINY_SETTINGS, draw_photos, resolved

Train = Callable[..., Concept]


def config(**given: Any) -> TrainConfig:
    given = {"name": "kit", "class_word": "cat", "rank": 4, "batch_size": 2, "distillation_prompts": 6, **given}
    return resolved(TrainConfig(**given), resolution=32)


def others_on(base: StableDiffusion) -> list[Concept]:
    """A dog in the bands below, and a car."""
    return [make_concept(base, name, band=band, seed=band) for band, name in enumerate(("rex", "dot"))]


@torch.no_grad()
def answer(base: StableDiffusion, prompt: str) -> Tensor:
    """What the UNet makes of noise and a prompt."""
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return base.unet(latents, 500, base.condition([prompt]).embeds, return_dict=False)[0]


def test_beside_the_neighbours_the_base_is_what_fusing_makes_of_it(base: StableDiffusion) -> None:
    others, before = others_on(base), weights_of(base)
    fusion = fuse(base, dict.fromkeys(others, 1.0))
    fused = answer(base, "a <rex> dog and a <dot> car")
    fusion.undo()
    with contexts(base, config(), others) as (alone, beside):
        with alone.within():
            plain = answer(base, "a <rex> dog and a <dot> car")
        with beside.within():
            together = answer(base, "a <rex> dog and a <dot> car")
    torch.testing.assert_close(together, fused, rtol=0, atol=1e-5)
    assert (plain - fused).abs().max() > 1e-3
    assert base.triggers() == []
    assert same_weights(before, weights_of(base))


def test_what_is_rehearsed_beside_them_is_what_base_and_neighbours_predict(base: StableDiffusion) -> None:
    with contexts(base, config(), others_on(base)) as (_, beside), beside.within():
        (distilled,) = beside.sources
        for example in [distilled.draw(step, 0) for step in range(8)]:
            text = base.condition([example.caption]).embeds
            with torch.no_grad():
                found = base.unet(example.noisy[None], example.time, text, return_dict=False)[0][0]
            torch.testing.assert_close(found, example.target, rtol=0, atol=1e-5)


def test_each_neighbour_gets_its_share_of_the_prompts(base: StableDiffusion) -> None:
    captions = context_captions(base, config(distillation_prompts=9), others_on(base))
    assert len(captions) == 9
    assert [sum(f"<{name}> dog" in caption for caption in captions) for name in ("rex", "dot")] == [3, 3]


def test_without_neighbours_there_is_one_lesson(base: StableDiffusion) -> None:
    with contexts(base, config()) as taught:
        assert len(taught) == 1


def test_captions_are_not_cached_where_neighbours_change_the_text_encoder(base: StableDiffusion) -> None:
    frozen = config(learning_rate_embedding=0.0, learning_rate_text_encoder=0.0)
    assert frozen.cache_text
    assert not settings_with(base, frozen, others_on(base)).cache_text
    assert settings_with(base, frozen, [make_concept(base, targets=["to_k"])]).cache_text


@pytest.fixture
def library(shared_base: StableDiffusion, tmp_path: Path) -> Library:
    """Two dogs more than a concept is trained beside."""
    library = Library(tmp_path / "library")
    for band in range(MOST + 2):
        library.add(make_concept(shared_base, f"dog{band}", band=band, rank=1))
    return library


def test_all_means_the_library_as_far_as_it_goes_own_class_first(
    library: Library, shared_base: StableDiffusion
) -> None:
    base = shared_base.fingerprint
    cat = make_concept(shared_base, "tom", band=MOST + 3, rank=1)
    object.__setattr__(cat, "class_word", "cat")
    library.add(cat)
    found = [concept.name for concept in choose_context(library, config(), base)]
    assert found == ["tom", *(f"dog{band}" for band in range(MOST - 1))]
    assert choose_context(library, config(), "another base") == []


@pytest.mark.parametrize("with_concepts", [("none",), ()])
def test_none_means_none(library: Library, shared_base: StableDiffusion, with_concepts: tuple[str, ...]) -> None:
    assert choose_context(library, config(with_concepts=with_concepts), shared_base.fingerprint) == []


@pytest.mark.parametrize(
    ("with_concepts", "base", "says"),
    [("dgo1", None, "dog1"), ("kit", None, "beside itself"), ("dog1", "another", "trained on base")],
)
def test_neighbours_that_cannot_be_are_refused(
    library: Library, shared_base: StableDiffusion, with_concepts: str, base: str | None, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        choose_context(library, config(with_concepts=(with_concepts,)), base or shared_base.fingerprint)


@pytest.fixture
def train(tmp_path: Path, library: Library) -> Train:
    """Trains `kit` in this process, stopping after a step where told."""
    photos = draw_photos(tmp_path / "photos")

    def run(*, stop_after: int | None = None, resume: bool = False, force: bool = False, **given: Any) -> Concept:
        def on_progress(progress: Progress) -> None:
            if progress.step == stop_after:
                raise KeyboardInterrupt

        settings = TINY_SETTINGS | {
            "name": "kit",
            "rank": 1,
            "steps": 4,
            "distillation_prompts": 2,
            "vectors": 1,
            **given,
        }
        return train_concept(
            photos,
            TrainConfig(**settings),
            library=library,
            base=tiny_base(),
            resume=resume,
            force=force,
            on_progress=on_progress,
        )

    return run


def test_a_concept_names_its_neighbours_and_depends_on_them(train: Train, library: Library) -> None:
    beside = train(with_concepts=("dog1", "dog2"))
    assert list(beside.training["context"]) == ["dog1", "dog2"]
    apart = train(with_concepts=("none",), force=True)
    assert apart.training["context"] == {}
    name = next(iter(apart.layers))
    assert not torch.equal(apart.layers[name].trained["A"], beside.layers[name].trained["A"])


def test_a_resumed_training_keeps_its_neighbours_whoever_has_come_since(
    train: Train, library: Library, shared_base: StableDiffusion
) -> None:
    whole = train(with_concepts=("dog1",))
    library.remove("kit")
    with pytest.raises(KeyboardInterrupt):
        train(with_concepts=("dog1",), stop_after=2)
    library.add(make_concept(shared_base, "new", band=14, rank=1))
    again = train(with_concepts=("dog1",), resume=True)
    assert again.training == whole.training
    assert all(torch.equal(again.layers[n].trained["A"], whole.layers[n].trained["A"]) for n in whole.layers)


def test_a_neighbour_that_has_changed_since_stops_the_resuming(
    train: Train, library: Library, shared_base: StableDiffusion
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(with_concepts=("dog1",), stop_after=2)
    library.add(make_concept(shared_base, "dog1", band=1, rank=1, seed=9), force=True)
    with pytest.raises(InputError, match="context"):
        train(with_concepts=("dog1",), resume=True)


def test_a_finished_training_is_known_though_the_library_has_grown(
    train: Train, library: Library, shared_base: StableDiffusion
) -> None:
    train(with_concepts=("all",))
    written = library.path("kit").stat().st_mtime_ns
    library.add(make_concept(shared_base, "new", band=14, rank=1))
    train(with_concepts=("all",), resume=True)
    assert library.path("kit").stat().st_mtime_ns == written


def test_a_finished_training_that_asked_for_other_neighbours_is_done_again_with_those_asked_for(train: Train) -> None:
    train(with_concepts=("none",))
    again = train(with_concepts=("dog1",), resume=True, force=True)
    assert list(again.training["context"]) == ["dog1"]


@pytest.mark.slow
def test_a_concept_leaves_its_neighbours_pictures_alone(base: StableDiffusion, tmp_path: Path) -> None:
    """Of the drift of a neighbour's predictions beside a concept that heard nothing of it, less than half is left."""
    library, photos = Library(tmp_path / "library"), draw_photos(tmp_path / "photos")
    rex = make_concept(base, "rex", targets=["to_k", "to_v"])
    library.add(rex)

    def drift(**given: Any) -> float:
        rates = {"learning_rate_unet": 0.05, "learning_rate_text_encoder": 0.0}
        settings = config(steps=60, distillation_weight=8.0, vectors=1, **rates, **given)
        kit = train_concept(photos, settings, library=library, base=base, force=True)
        found = []
        for concepts in ({rex: 1.0}, {rex: 1.0, kit: 1.0}):
            fusion = fuse(base, concepts, on_overlap="allow")
            found.append(torch.cat([answer(base, prompt) for prompt in ("a photo of a <rex> dog", "a <rex> dog")]))
            fusion.undo()
        return float((found[0] - found[1]).square().mean())

    assert (
        drift(with_concepts=("rex",), distillation_prompts=12)
        < drift(with_concepts=("none",), distillation_prompts=0) / 2
    )
