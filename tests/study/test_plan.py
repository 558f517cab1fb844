"""Who is in the study, which runs it has, and what they are expected to take."""

import pytest

from spectral_fusion.demo import EXAMPLES
from spectral_fusion.errors import InputError
from spectral_fusion.toybox.data import HELD_OUT
from study.families import FAMILIES
from study.identities import pairs, study_subjects, tuning_subjects
from study.methods.registry import OURS, all_methods, choose_methods
from study.plan import Costs, Plan, estimate
from study.settings import Settings

SETTINGS = Settings()


def plan(*names: str, **changes) -> Plan:
    settings = Settings(**{"seeds_of_few": 1} | changes)
    return Plan(settings, choose_methods(settings, names), {"lora": 3.0}, depth=False)


@pytest.mark.parametrize("seed", range(3))
def test_half_of_a_set_shares_a_class(seed: int) -> None:
    for count in SETTINGS.counts:
        words = [subject.class_word for subject in study_subjects(seed, count)]
        assert words.count(words[0]) == (count + 1) // 2


def test_no_identity_is_in_two_sets_or_tuned_on_or_shipped_or_seen_by_the_scorers() -> None:
    sets = [study_subjects(seed, SETTINGS.slots) for seed in range(SETTINGS.seeds_of_few)] + [tuning_subjects(20)]
    numbers = [subject.number for subjects in sets for subject in subjects]
    assert len(set(numbers)) == len(numbers)
    assert not set(numbers) & {example.number for example in EXAMPLES.values()}
    assert max(numbers) < HELD_OUT


def test_the_first_of_a_set_are_the_same_whatever_their_number() -> None:
    assert study_subjects(0, 16)[:3] == study_subjects(0, 3)


def test_pairs_are_within_the_set_and_of_both_kinds() -> None:
    for count in SETTINGS.counts:
        found = pairs(count, SETTINGS.pairs)
        assert 1 <= len(found) <= SETTINGS.pairs
        assert all(0 <= first < second < count for first, second in found)
    words = [subject.class_word for subject in study_subjects(0, 8)]
    assert {words[a] == words[b] for a, b in pairs(8, SETTINGS.pairs)} == {True, False}


def test_each_run_is_there_once_and_concepts_come_before_their_fusion() -> None:
    runs = list(plan("spectral-sum", "spectral-mean", "joint", counts=(2, 3), seeds=2).runs())
    assert len(set(runs)) == len(runs)
    alone = [key for key in runs if key.kind == "alone"]
    assert {(key.name, key.seed, key.subject) for key in alone} == {
        ("additive", seed, i) for seed in range(2) for i in range(3)
    }
    assert len(runs) - len(alone) == 3 * 2 * 2
    for at, key in enumerate(runs):
        if key.kind == "fused" and key.name != "joint":
            assert {k.subject for k in runs[:at] if k.kind == "alone" and k.seed == key.seed} >= set(range(key.place))


def test_the_most_concepts_have_fewer_sets() -> None:
    runs = list(plan(OURS, counts=(8, 16), seeds=3).runs())
    assert [key.seed for key in runs if key.kind == "fused"] == [0, 1, 2, 0]
    assert max(key.subject for key in runs if key.seed == 2) == 7


def test_few_concepts_have_more_sets_in_what_is_compared() -> None:
    found = plan(OURS, "joint", counts=(3, 5), seeds=2, seeds_of_few=4)
    fused = [(key.name, key.seed, key.place) for key in found.runs() if key.kind == "fused"]
    of_three = [(OURS, 0, 3), ("joint", 0, 3), (OURS, 1, 3), ("joint", 1, 3), (OURS, 2, 3), (OURS, 3, 3)]
    assert fused == [*of_three, (OURS, 0, 5), ("joint", 0, 5), (OURS, 1, 5), ("joint", 1, 5)]


def test_a_trial_is_on_one_set_of_few() -> None:
    found = plan("off-bands", counts=(2, 3, 8), seeds=3)
    assert [(key.seed, key.place) for key in found.runs() if key.kind == "fused"] == [(0, 3)]


def test_rates_are_of_the_family_and_joint_training_has_those_of_training_alone() -> None:
    found = plan(OURS, "lora-sum", "joint")
    assert found.factor(FAMILIES["lora"]) == 3.0
    assert found.factor(FAMILIES["joint"]) == found.factor(FAMILIES["additive"]) == 1.0


def test_depths_cover_every_band() -> None:
    found = Plan(SETTINGS, choose_methods(SETTINGS, [OURS]), {})
    assert {key.place for key in found.depths()} == set(range(SETTINGS.slots))
    assert set(found.depths()) <= set(found.runs())


def test_a_training_is_counted_where_it_is_first_needed() -> None:
    found = plan("spectral-sum", "spectral-mean", counts=(2,), seeds=1)
    seconds = estimate(found, Costs(step=1.0, picture=0.0, solve=0.0), lambda job: job.slot == 1, lambda key: False)
    assert list(seconds.values()) == [found.settings.steps, 0.0, 0.0, 0.0]
    left = estimate(found, Costs(1.0, 0.0, 0.0), lambda job: False, lambda key: key.kind == "alone")
    assert sum(left.values()) == 2 * found.settings.steps


def test_fusions_that_look_at_data_cost_their_pictures_and_their_solving() -> None:
    found = plan("lora-sum", "gradient-fusion", counts=(2,), seeds=1)
    seconds = estimate(found, Costs(0.0, 1.0, 100.0), lambda job: True, lambda key: False)
    plain, looking = (took for key, took in seconds.items() if key.kind == "fused")
    s = found.settings
    assert looking - plain == pytest.approx(
        100 + 2 * s.fusion_pictures * s.fusion_inference_steps / s.num_inference_steps
    )


def test_methods_have_names_of_their_own_and_unknown_ones_are_refused() -> None:
    assert list(all_methods(SETTINGS)) == [method.name for method in choose_methods(SETTINGS, [])]
    with pytest.raises(InputError, match="'spectral' is unknown"):
        choose_methods(SETTINGS, ["spectral"])


def test_a_run_does_not_depend_on_how_many_others_there_are() -> None:
    assert Settings(counts=(3,), seeds=1).digest == SETTINGS.digest
    assert Settings(steps=121).digest != SETTINGS.digest


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"counts": (1,)}, "counts"),
        ({"counts": (17,)}, "to 16"),
        ({"steps": 0}, "steps is 0"),
        ({"prompts": ("a",)}, "prompts"),
    ],
)
def test_bad_settings_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings(**settings)
