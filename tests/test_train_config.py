"""Settings: what they refuse, and what becomes of those left open."""

from dataclasses import FrozenInstanceError, replace
from typing import get_type_hints

import pytest

from spectral_fusion.base.presets import FULL_SIZE, MINIATURE, TINY
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from spectral_fusion.training.config import ResolvedConfig, TrainConfig, settings
from spectral_fusion.training.model import target_layers
from training import resolved


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{"name": "rex", "class_word": "dog"} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "spiral"}, "additive"),
        ({"preset": "hasty"}, "careful"),
        ({"optimizer": "sgd"}, "prodigy"),
        ({"schedule": "step"}, "cosine"),
        ({"precision": "fp8"}, "bf16"),
        ({"name": " "}, "--name"),
        ({"class_word": ""}, "--class"),
        ({"band": -1}, "band"),
        ({"band": "first"}, "auto"),
        ({"band_side": "middle"}, "bottom"),
        ({"target": ()}, "target"),
        ({"steps": 0}, "from 1"),
        ({"batch_size": 0}, "from 1"),
        ({"batch_size": 2.5}, "whole number"),
        ({"learning_rate_unet": -1e-4}, "from 0"),
        ({"learning_rate_unet": float("nan")}, "nan"),
        ({"steps": float("inf")}, "inf"),
        ({"caption_dropout": 1.5}, "to 1"),
        ({"random_crop": True, "cache_latents": True}, "random_crop"),
        ({"cache_text": True}, "cache_text"),
        ({"offload_blocks": True, "quantize": "int8"}, "offload_blocks"),
        ({"learning_rate_text_encoder": 0, "learning_rate_unet": 0}, "adapter"),
        ({"optimizer": "prodigy", "learning_rate_unet": 1, "learning_rate_embedding": 0.5}, "prodigy"),
        ({"schedule": "constant", "warmup_steps": 10}, "constant_with_warmup"),
        ({"num_class_images": 3, "class_images": None, "prior_weight": -1}, "prior_weight"),
        ({"steps": 10**9}, "from 1 to 1000000"),
        ({"batch_size": 2**63}, "from 1 to 4096"),
        ({"rank": 10**23}, "from 1 to 16384"),
        ({"warmup_steps": 2**63}, "from 0 to 1000000"),
        ({"band": 10**23}, "from 0 to 1000000"),
        ({"seed": 2**63}, f"below {2**63}"),
        ({"ema_decay": 1.0}, "below 1"),
        ({"distillation_weight": 1e30}, "from 0 to 1000000$"),
    ],
)
def test_a_setting_out_of_range_is_one_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        config(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("resolution", "preset"), [(512, FULL_SIZE), (128, MINIATURE), (64, TINY)])
def test_open_settings_become_what_the_base_is_best_trained_with(resolution: int, preset: dict[str, object]) -> None:
    filled = resolved(config(), resolution=resolution, prediction_type="epsilon", precision="fp32")
    assert {name: getattr(filled, name) for name in preset} == preset
    assert filled.trigger == "<rex>"
    assert filled.resolution == resolution
    open_still = {"class_images", "prediction_type", "validation_images", "quantize"}  # none may be what is wanted
    assert None not in [getattr(filled, name) for name in settings() if name not in open_still]


def test_presets_take_more_or_less_time_and_steps_have_the_last_word() -> None:
    def steps(**changes: object) -> int:
        return resolved(config(**changes), resolution=64, prediction_type="epsilon", precision="fp32").steps

    assert steps(preset="quick") < steps() == steps(preset="balanced") < steps(preset="careful")
    assert steps(preset="careful", steps=7) == 7


def test_rotations_learn_at_larger_rates_than_shifts() -> None:
    for resolution in (64, 128, 512):
        additive, rotational = (
            resolved(config(mode=mode), resolution=resolution, prediction_type="epsilon", precision="fp32")
            for mode in ("additive", "rotational")
        )
        assert rotational.learning_rate_unet > additive.learning_rate_unet
        assert rotational.rank == additive.rank


def test_blocks_that_are_excluded_stay_as_they_are(shared_base: StableDiffusion) -> None:
    def names(**changes: object) -> set[str]:
        return set(target_layers(shared_base, resolved(config(target=("to_k", "q_proj"), **changes))))

    everything, some = names(), names(exclude_modules=("down_blocks.0", "text_encoder"))
    assert some < everything
    assert {name for name in everything if ".down_blocks.0." in name or name.startswith("text_encoder.")}
    assert some == {n for n in everything if ".down_blocks.0." not in n and not n.startswith("text_encoder.")}
    assert names(exclude_modules=("blocks.0", "own_blocks")) == everything, "whole names only"
    with pytest.raises(InputError, match="no layer outside of unet text_encoder"):
        names(exclude_modules=("unet", "text_encoder"))


def test_what_was_given_stays() -> None:
    filled = resolved(
        config(steps=7, trigger="<r>", learning_rate_unet=0),
        resolution=512,
        prediction_type="epsilon",
        precision="fp32",
    )
    assert (filled.steps, filled.trigger, filled.learning_rate_unet) == (7, "<r>", 0)


def test_min_snr_is_off_for_v_prediction_unless_asked_for() -> None:
    def gamma(prediction_type: str, **changes: object) -> float:
        return resolved(
            config(**changes), resolution=512, prediction_type=prediction_type, precision="fp32"
        ).min_snr_gamma

    assert gamma("epsilon") == 5
    assert gamma("epsilon", min_snr_gamma=0) == 0
    assert gamma("v_prediction") == 0
    assert gamma("v_prediction", min_snr_gamma=5) == 5


def test_text_is_cached_only_where_the_text_encoder_stays_as_it_is() -> None:
    def cached(**changes: object) -> bool:
        return resolved(config(**changes), resolution=64, prediction_type="epsilon", precision="fp32").cache_text

    assert not cached()
    assert not cached(learning_rate_text_encoder=0)
    assert cached(learning_rate_text_encoder=0, learning_rate_embedding=0)


def test_the_settings_that_a_file_keeps_hold_no_path_of_this_machine() -> None:
    kept = config(base="/home/someone/models/sd.safetensors", class_images="/home/someone/dogs").result_settings()
    assert "someone" not in str(kept)
    assert kept["base"] == "sd.safetensors"
    assert config(base="owner/name").result_settings()["base"] == "owner/name"


def test_settings_that_only_cost_time_or_memory_are_not_kept() -> None:
    assert config(gradient_accumulation=2).result_settings() == config().result_settings()
    assert config(seed=1).result_settings() != config().result_settings()


def test_prodigy_starts_from_a_factor_of_one() -> None:
    filled = resolved(
        config(optimizer="prodigy", learning_rate_text_encoder=0),
        resolution=64,
        prediction_type="epsilon",
        precision="fp32",
    )
    assert (filled.learning_rate_embedding, filled.learning_rate_text_encoder, filled.learning_rate_unet) == (1, 0, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flip": "yes"}, "flip is 'yes'; give true or false"),
        ({"steps": "7"}, "steps is '7'; give a whole number from 1"),
        ({"steps": True}, "steps is True"),
        ({"with_concepts": "rex"}, "with_concepts is 'rex'; give a list"),
        ({"stepz": 7}, "there is no setting 'stepz'; did you mean 'steps'?"),
        ({"class_word": None}, "class_word is None; give text"),
    ],
)
def test_a_setting_of_another_type_or_name_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        config(**changes)
    assert words in str(caught.value)


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(InputError, match="class_word is missing"):
        TrainConfig(name="rex")  # type: ignore[call-arg]


def test_lists_and_numbered_bands_are_taken_as_flags_and_files_give_them() -> None:
    given = config(target=["to_k", "to_v"], band="3", learning_rate_unet=1)
    assert (given.target, given.band, given.learning_rate_unet) == (("to_k", "to_v"), 3, 1.0)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        config().seed = 3  # type: ignore[misc]


def test_a_training_runs_with_nothing_left_open() -> None:
    filled = resolved(config())
    again = replace(filled, steps=9)
    assert isinstance(again, ResolvedConfig)
    assert again.steps == 9
    with pytest.raises(InputError, match="rank is None; give a whole number from 1"):
        replace(filled, rank=None)
    with pytest.raises(InputError, match="rank is 0"):
        replace(filled, rank=0)


def test_the_resolved_type_has_the_settings_of_the_open_one() -> None:
    opened, filled = get_type_hints(TrainConfig), get_type_hints(ResolvedConfig)
    assert list(opened) == list(filled)
    assert {name for name in opened if opened[name] != filled[name]} == {
        name for name, field in TrainConfig.__dataclass_fields__.items() if field.default is None
    } - {"class_images", "prediction_type", "validation_images", "quantize"}
    for name, hint in filled.items():
        assert hint == opened[name] or opened[name] == hint | None
