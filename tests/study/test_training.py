"""What sets the families apart: their directions, what trains, what is kept apart; and concepts that are kept."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from concepts import delta, same_weights, weights_of
from spectral_fusion.concept import Concept
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.lora import Lora
from spectral_fusion.spectral import band_overlap, singular_triplets
from spectral_fusion.training.loop import Diverged
from study.activations import output_energy
from study.conduct import Laboratory
from study.families import FAMILIES, OWN, matched_rank
from study.identities import study_subjects
from study.methods.applied import applying
from study.methods.inputs import neutral_inputs
from study.methods.merging import summed
from study.methods.registry import Method
from study.plan import Plan
from study.sizes import trainable_numbers
from study.training import Job, make_recipe
from studying import SMALLEST, laboratory

SUBJECTS = study_subjects(0, 4)
LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return laboratory(tmp_path_factory.mktemp("study"))[0]


def trained(lab: Laboratory, family: str, slot: int, **changes) -> Concept | Lora:
    job = replace(Job(FAMILIES[family], (SUBJECTS[slot],), slot, 0), **changes)
    return lab.shelf.get(job)[0][0]


def words_of(adapter: Concept | Lora) -> torch.Tensor:
    return adapter.embeddings["text_encoder"]


def weight_of(lab: Laboratory) -> torch.Tensor:
    return lab.base.layers()[LAYER].weight


@pytest.mark.parametrize("family", ["additive", "interleaved", "balanced", "rotational"])
def test_concepts_of_different_slots_have_different_directions_of_the_base(lab: Laboratory, family: str) -> None:
    first, second = (trained(lab, family, slot).layers[LAYER].basis for slot in (0, 1))
    assert band_overlap(first, second) < 1e-2
    assert torch.allclose(weight_of(lab) @ first.V, first.U * first.S, atol=1e-2)


def test_the_lowest_bands_are_counted_from_the_smallest_singular_value(lab: Laboratory) -> None:
    values = singular_triplets(weight_of(lab), 0, 32).S
    assert torch.allclose(trained(lab, "lowest", 0).layers[LAYER].basis.S, values[30:32], rtol=1e-2)
    assert torch.allclose(trained(lab, "lowest", 1).layers[LAYER].basis.S, values[28:30], rtol=1e-2)


def test_all_in_one_band_means_the_first(lab: Laboratory) -> None:
    bands = {trained(lab, "one-band", slot).band.index for slot in (0, 1)}
    assert bands == {0}


def test_private_deltas_stay_orthogonal_through_training(lab: Laboratory) -> None:
    deltas = [delta(trained(lab, "private", slot).factors(LAYER)) for slot in (0, 1)]
    scale = deltas[0].norm() * deltas[1].norm()
    assert scale > 0
    assert (deltas[0].T @ deltas[1]).norm() < 1e-2 * scale  # the file is in half precision
    assert (deltas[0] @ deltas[1].T).norm() < 1e-2 * scale
    free = [delta(trained(lab, "additive", slot).factors(LAYER)) for slot in (0, 1)]
    assert (free[0].T @ free[1]).norm() > 1e-2 * free[0].norm() * free[1].norm()


def test_orthogonal_adaptation_trains_b_on_slices_of_one_basis(lab: Laboratory) -> None:
    first, second = (trained(lab, "orthogonal", slot) for slot in (0, 1))
    A, B = first.layers[LAYER]
    assert torch.allclose(A @ A.T, torch.eye(len(A)), atol=1e-5)
    assert (A @ second.layers[LAYER][0].T).abs().max() < 1e-5
    assert B.abs().max() > 0
    product = first.factors(LAYER).down @ second.factors(LAYER).down.T
    assert product.abs().max() < 1e-5


def test_embeddings_alone_have_no_delta(lab: Laboratory) -> None:
    learned = trained(lab, "embeddings", 0)
    assert learned.layers == {}
    assert not torch.equal(words_of(learned), words_of(trained(lab, "embeddings", 0, seed=1)))


def test_families_have_as_many_trainable_numbers(lab: Laboratory) -> None:
    ours = trainable_numbers(OWN, trained(lab, "additive", 0))
    for family in ("one-band", "lowest", "lora", "private", "interleaved"):
        assert trainable_numbers(FAMILIES[family], trained(lab, family, 0)) == ours
    orthogonal = trainable_numbers(FAMILIES["orthogonal"], trained(lab, "orthogonal", 0))
    assert orthogonal == pytest.approx(ours, rel=0.2)  # ranks are whole numbers


def test_a_matched_rank_sets_as_many_numbers_where_there_is_room() -> None:
    assert matched_rank(128, 128, 4, 16) == 8
    assert matched_rank(1024, 128, 4, 16) * 1024 == pytest.approx(4 * (1024 + 128), rel=0.15)
    assert matched_rank(128, 512, 4, 16) * 128 == 4 * (128 + 512)
    assert matched_rank(128, 64, 8, 16) == 4  # all that 16 disjoint slices of 64 inputs leave


def test_joint_training_gives_one_delta_and_tokens_for_all(lab: Laboratory) -> None:
    before = weights_of(lab.base)
    adapters, _ = lab.shelf.get(Job(FAMILIES["joint"], tuple(SUBJECTS[:2]), 0, 0))
    assert [adapter.trigger for adapter in adapters] == [subject.trigger for subject in SUBJECTS[:2]]
    assert isinstance(adapters[0], Concept)
    assert adapters[0].band.rank == 2 * SMALLEST.rank
    assert adapters[1].layers == {}
    assert not torch.equal(words_of(adapters[0]), words_of(adapters[1]))
    assert same_weights(before, weights_of(lab.base))


def test_energy_of_outputs_is_what_the_layer_puts_out(lab: Laboratory) -> None:
    factors = trained(lab, "additive", 0).factors(LAYER)
    x = torch.randn(factors.down.shape[1], 9)
    assert output_energy(factors, x @ x.T) == pytest.approx(float((delta(factors) @ x).square().sum()), rel=1e-4)


def test_the_penalty_makes_deltas_quieter_on_neutral_prompts(lab: Laboratory) -> None:
    names = list(trained(lab, "additive", 0).layers)
    grams = neutral_inputs(lab.base, names, SMALLEST)
    loud = Job(replace(OWN, name="loud"), (SUBJECTS[0],), 0, 0, 30.0)
    quiet = Job(replace(OWN, name="quiet", neutral_penalty=100.0), (SUBJECTS[0],), 0, 0, 30.0)
    energies = []
    for job in (loud, quiet):
        concept = lab.shelf.get(job)[0][0]
        energies.append(sum(float(output_energy(concept.factors(name), grams[name].float())) for name in names))
    assert energies[1] < 0.9 * energies[0]


def test_a_trained_concept_is_kept_until_something_that_it_depends_on_changes(tmp_path: Path) -> None:
    lab, _ = laboratory(tmp_path)
    job = Job(OWN, (SUBJECTS[0],), 0, 0)
    assert not lab.shelf.has(job)
    assert lab.shelf.get(job)[1] is not None
    assert lab.shelf.has(job)
    assert lab.shelf.get(job)[1] is None
    longer = laboratory(tmp_path, replace(SMALLEST, steps=3))[0]
    assert not longer.shelf.has(job)


def test_a_training_that_diverges_is_a_result_and_is_not_tried_again(tmp_path: Path) -> None:
    lab, told = laboratory(tmp_path)
    broken = replace(OWN, name="broken", neutral_penalty=math.inf)
    plan = Plan(SMALLEST, [Method("broken", "broken", broken, applying(summed))], {}, depth=False)
    assert lab.conduct(plan) == 0
    assert [run.status for run in lab.journal()] == ["diverged"] * 3
    assert all("the loss is nan" in run.reason for run in lab.journal())
    assert sum("diverged" in text for text in told) == 3
    assert lab.shelf.has(Job(broken, (SUBJECTS[0],), 0, 0))
    with pytest.raises(Diverged, match="the loss is nan"):
        lab.shelf.get(Job(broken, (SUBJECTS[0],), 0, 0))


@pytest.mark.parametrize("family", ["additive", "lora"])
def test_the_same_job_gives_the_same_adapter_again(family: str, lab: Laboratory, tmp_path: Path) -> None:
    first, second = trained(lab, family, 0), trained(laboratory(tmp_path)[0], family, 0)
    assert all(
        torch.equal(a, b)
        for name in first.layers
        for a, b in zip(first.factors(name), second.factors(name), strict=True)
    )


def test_a_slot_without_room_is_refused(lab: Laboratory) -> None:
    settings = replace(SMALLEST, slots=20)
    job = Job(OWN, (SUBJECTS[0],), 16, 0)
    with pytest.raises(InputError, match="needs 34 directions, the base has 32"):
        make_recipe(lab.base, job, lab.shelf.folders(job), settings)
