"""The job: pictures in, a concept in the library out, and the base as it was."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, Library
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band
from spectral_fusion.training import Progress, TrainConfig, train_concept, watch
from tiny import tiny_base
from training import draw_photos

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
TEXT = "text_encoder"
Train = Callable[..., Concept]


@pytest.fixture(autouse=True)
def quick_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at these pictures: two denoising steps."""
    monkeypatch.setattr(watch, "SAMPLE_STEPS", 2)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw_photos(tmp_path / "photos")


@pytest.fixture
def train(library: Library, base: StableDiffusion, photos: Path) -> Train:
    """Trains for a few steps on the tiny base; keyword arguments are settings."""

    def run(images: Path = photos, base: StableDiffusion = base, **given: Any) -> Concept:
        job = {name: given.pop(name) for name in ("resume", "force", "on_progress") if name in given}
        settings: dict[str, Any] = {
            "name": "rex",
            "class_word": "dog",
            "rank": 4,
            "steps": 2,
            "distillation_prompts": 0,
        }
        config = TrainConfig(**settings | given)
        return train_concept(images, config, library=library, base=base, **job)

    return run


def snapshot(base: StableDiffusion) -> dict[str, Any]:
    """All that a training could leave behind on a base."""
    models = [base.unet, base.text_encoder, base.vae]
    modules = [(name, module) for model in models for name, module in model.named_modules()]
    weights = [item for model in models for item in model.state_dict().items()]
    return {
        "weights": [(name, hashlib.sha256(weight.numpy().tobytes()).digest()) for name, weight in weights],
        "modules": [(name, type(module), module.training) for name, module in modules],
        "checkpointing": [getattr(module, "gradient_checkpointing", None) for _, module in modules],
        "grads": [parameter.requires_grad for model in models for parameter in model.parameters()],
        "vocabulary": dict(base.tokenizer.get_vocab()),
        "scheduler": dict(base.pipeline.scheduler.config),
    }


def test_the_concept_is_in_the_library_with_preview_and_settings(train: Train, library: Library) -> None:
    concept = train(vectors=3, learning_rate_text_encoder=1e-3)
    stored = library.get("rex")
    assert (stored.trigger, stored.class_word, stored.mode) == ("<rex>", "dog", "additive")
    assert stored.band == Band(0, stored.band.rank, "bottom")
    assert len(stored.embeddings[TEXT]) == 3
    assert {name.partition(".")[0] for name in stored.layers} == {"unet", "text_encoder"}
    assert stored.training["steps"] == 2
    assert stored.fingerprints == concept.fingerprints
    assert Image.open(library.folder("rex") / "preview.png").size == (32, 32)


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"learning_rate_text_encoder": 0}])
def test_the_base_is_bit_for_bit_as_before(train: Train, base: StableDiffusion, changes: dict[str, Any]) -> None:
    before = snapshot(base)
    train(sample_every=1, validate_every=1, **changes)
    assert snapshot(base) == before


def test_samples_are_compared_with_the_photos_where_the_base_has_a_judge(
    train: Train, base: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Progress] = []
    train(sample_every=1, on_progress=told.append)
    assert [progress.likeness for progress in told] == [None, None]

    def embed_identity(images: list[Image.Image]) -> torch.Tensor:
        """Samples are two at a time, photos are more."""
        return torch.tensor([[1.0, 0.0] if len(images) == 2 else [0.6, 0.8]]).repeat(len(images), 1)

    monkeypatch.setattr(type(base), "scorers", lambda self: SimpleNamespace(embed_identity=embed_identity))
    told.clear()
    train(sample_every=2, force=True, on_progress=told.append)
    assert told[0].likeness is None, "no samples at this step"
    assert told[1].likeness == pytest.approx(0.6)


def test_the_base_is_as_before_when_a_training_is_broken_off(train: Train, base: StableDiffusion) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    before = snapshot(base)
    with pytest.raises(KeyboardInterrupt):
        train(on_progress=stop)
    assert snapshot(base) == before


def test_the_loss_goes_down_on_one_picture(tmp_path: Path, library: Library) -> None:
    losses: list[float] = []

    def note(progress: Progress) -> None:
        if progress.probe_loss is not None:
            losses.append(progress.probe_loss)

    config = TrainConfig(name="rex", class_word="dog", rank=4, steps=24, validate_every=8, schedule="constant")
    train_concept(draw_photos(tmp_path / "one", 1), config, library=library, base=tiny_base(), on_progress=note)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("mode", ["additive", "rotational"])
def test_both_modes_learn_on_both_prediction_types(train: Train, prediction_type: str, mode: str) -> None:
    losses: list[float] = []
    concept = train(
        base=tiny_base(prediction_type=prediction_type),
        mode=mode,
        train_s=True,
        steps=6,
        validate_every=3,
        on_progress=lambda p: losses.append(p.probe_loss) if p.probe_loss else None,
    )
    assert losses[1] < losses[0]
    assert concept.mode == mode
    assert all("c" in layer.trained for layer in concept.layers.values())


def test_the_same_training_gives_the_same_file(train: Train, library: Library) -> None:
    train()
    first = library.path("rex").read_bytes()
    torch.manual_seed(12345)
    train(force=True)
    assert library.path("rex").read_bytes() == first
    train(force=True, seed=1)
    assert library.path("rex").read_bytes() != first


def test_what_watches_a_training_does_not_change_it(train: Train, library: Library) -> None:
    train()
    first = library.path("rex").read_bytes()
    train(force=True, sample_every=1, validate_every=1, gradient_checkpointing=True, checkpoint_every=1)
    assert library.path("rex").read_bytes() == first
    assert len(list((library.folder("rex") / "training" / "samples").glob("*.png"))) == 2


def test_embeddings_start_from_the_class_word_and_move(train: Train, base: StableDiffusion) -> None:
    words = base.text_encoder.get_input_embeddings().weight
    (dog,) = base.tokenizer("dog", add_special_tokens=False).input_ids
    frozen = train(learning_rate_embedding=0)
    assert torch.allclose(frozen.embeddings[TEXT][0], words[dog])
    assert frozen.embeddings[TEXT][1].std() == pytest.approx(words.std().item(), rel=0.5)
    moved = train(force=True).embeddings[TEXT] - frozen.embeddings[TEXT]
    assert (moved.norm(dim=1) > 1e-3).all()


def test_masks_decide_what_is_learned(train: Train, tmp_path: Path) -> None:
    def trained(white: int, **given: Any) -> torch.Tensor:
        folder = draw_photos(tmp_path / f"{white}", 1)
        mask = Image.new("L", (40, 40), 0)
        mask.paste(255, (0, 0, white, 40))
        mask.save(folder / "0-masklabel.png")
        return train(folder, force=True, **given).embeddings[TEXT]

    without = trained(20, masked_loss=False)
    assert torch.equal(trained(40, masked_loss=True), without)
    assert not torch.equal(trained(20, masked_loss=True), without)


def test_prior_preservation_generates_missing_class_pictures_once(train: Train, library: Library) -> None:
    plain = train()
    with_prior = train(force=True, num_class_images=2)
    folder = library.folder("rex") / "training" / "class"
    files = sorted(folder.glob("*.png"))
    assert len(files) == 2
    times = [file.stat().st_mtime_ns for file in files]
    train(force=True, num_class_images=2)
    assert [file.stat().st_mtime_ns for file in files] == times
    assert not torch.equal(plain.embeddings[TEXT], with_prior.embeddings[TEXT])


def test_class_pictures_of_the_user_are_used_and_kept(train: Train, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "dogs", 2)
    train(class_images=str(folder), num_class_images=2)
    assert len(list(folder.iterdir())) == 2
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="empty"):
        train(class_images=str(tmp_path / "none"), force=True)


@pytest.mark.parametrize("setting", ["class_images", "validation_images"])
def test_a_folder_that_is_not_there_is_said_before_the_base_is_looked_for(tmp_path: Path, setting: str) -> None:
    config = TrainConfig(name="rex", class_word="dog", base=str(tmp_path / "none"), validate_every=1, **{setting: "no"})
    with pytest.raises(InputError, match=f"{setting} 'no' is no folder"):
        train_concept(draw_photos(tmp_path / "photos"), config, library=Library(tmp_path / "concepts"))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_trains_in_float32_tensors(train: Train, precision: str, dtype: torch.dtype) -> None:
    concept = train(base=tiny_base(dtype=dtype), precision=precision)
    assert concept.embeddings[TEXT].dtype == torch.float32
    assert any(tensor.abs().max() > 0 for layer in concept.layers.values() for tensor in layer.trained.values())


@pytest.mark.parametrize("side", ["top", "bottom"])
def test_two_concepts_get_two_bands(train: Train, side: str) -> None:
    assert train(band_side=side).band == Band(0, 4, side)
    assert train(name="tom", class_word="cat", band_side=side).band == Band(1, 4, side)
    assert train(force=True, band_side=side).band == Band(0, 4, side)


def test_a_bottom_band_is_at_the_bottom_of_every_layer_whatever_its_size(train: Train, base: StableDiffusion) -> None:
    concept = train(band_side="bottom", target=("to_q", "ff.net.0.proj"))
    sizes = set()
    for name, layer in base.layers().items():
        if name in concept.layers:
            values = torch.linalg.svdvals(layer.weight)
            sizes.add(len(values))
            assert torch.allclose(concept.layers[name].basis.S, values[-4:], rtol=1e-3, atol=1e-5)
    assert len(sizes) > 1


def test_targets_choose_the_layers(train: Train) -> None:
    concept = train(target=("to_v",))
    assert {name.split(".")[-1] for name in concept.layers} == {"to_v"}
    with pytest.raises(InputError, match="to_x"):
        train(target=("to_x",), force=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../rex"}, "cannot name"),
        ({"trigger": "dog"}, "trigger"),
        ({"band": 99}, "directions"),
        ({"batch_size": 3, "gradient_accumulation": 2}, "multiple of 2"),
        ({"optimizer": "prodigy"}, "pip install prodigyopt"),
    ],
)
def test_bad_input_is_found_before_anything_is_trained_and_leaves_nothing(
    train: Train, library: Library, base: StableDiffusion, changes: dict[str, Any], words: str
) -> None:
    before = snapshot(base)
    with pytest.raises(InputError, match=words):
        train(**changes)
    assert snapshot(base) == before
    assert not library.list()
    assert not [path for path in library.root.glob("*") if not path.name.startswith(".")]


def test_a_concept_of_that_name_is_replaced_by_force_only_and_kept_in_the_trash(train: Train, library: Library) -> None:
    train()
    old = library.path("rex").read_bytes()
    with pytest.raises(InputError, match="--force"):
        train(steps=3)
    assert library.path("rex").read_bytes() == old
    train(steps=3, force=True)
    assert library.path("rex").read_bytes() != old
    assert [path.read_bytes() for path in library.root.glob(".trash/rex@*/concept.safetensors")] == [old]


def test_a_trigger_of_another_concept_is_refused_with_its_name(train: Train) -> None:
    train()
    with pytest.raises(InputError, match="'rex'"):
        train(name="tom", trigger="<rex>")


def test_a_loss_that_is_not_finite_is_an_error_and_saves_nothing(train: Train, library: Library) -> None:
    with pytest.raises(InputError, match="learning rate"):
        train(
            learning_rate_unet=10.0,
            band_side="top",
            max_grad_norm=0.0,
            steps=60,
            target=("to_q", "to_k", "to_v", "to_out.0"),
        )
    assert not library.path("rex").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_base_that_is_not_finite_is_blamed_and_nothing_is_filed(
    train: Train, library: Library, precision: str
) -> None:
    base = tiny_base()
    with torch.no_grad():
        base.unet.conv_in.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="get the base again"):
        train(base=base, precision=precision, steps=20)
    assert not library.path("rex").exists()


def test_a_training_that_changes_nothing_is_not_filed(train: Train, library: Library) -> None:
    with pytest.raises(InputError, match="changed nothing"):
        train(learning_rate_embedding=0, learning_rate_unet=1e-45, learning_rate_text_encoder=0, steps=1)
    assert not library.path("rex").exists()


def test_class_pictures_of_another_class_are_not_taken_over(train: Train, library: Library) -> None:
    train(num_class_images=1)
    (dog,) = (library.folder("rex") / "training" / "class").glob("*.png")
    train(num_class_images=1, class_word="cat", force=True)
    both = set((library.folder("rex") / "training" / "class").glob("*.png"))
    assert dog in both
    assert len(both) == 2
    assert library.get("rex").training["class_pictures"] != {dog.name: "generated"}


def test_a_name_that_is_given_twice_counts_once(train: Train, library: Library) -> None:
    train(name="tom", class_word="cat")
    concept = train(with_concepts=("tom", "tom"))
    assert list(concept.training["context"]) == ["tom"]


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not on this machine")
@pytest.mark.parametrize(
    "subject", ["dog6", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cat2", "rc_car"))]
)
def test_real_photographs_go_through_the_whole_path(train: Train, library: Library, subject: str) -> None:
    folder = ImageFolder.scan(PHOTOS / subject)
    train(PHOTOS / subject, resolution=64, flip=True, random_crop=True)
    assert library.get("rex").training["pictures"] == len(folder.photos) == 5
    assert np.asarray(Image.open(library.folder("rex") / "preview.png")).std() > 0
