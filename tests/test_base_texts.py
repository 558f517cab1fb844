"""Triggers: adding them, what a stock base makes of them, and removing them without a trace."""

import pytest
import torch

from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from spectral_fusion.names import check_trigger
from words import add_tokens, remove_tokens, token_ids

WIDTH = 64


def vectors(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def state(base: StableDiffusion) -> tuple[str, torch.Tensor, int, int]:
    embedding = base.text_encoder.get_input_embeddings()
    backend = base.tokenizer.backend_tokenizer.to_str()
    return backend, embedding.weight.detach().clone(), embedding.num_embeddings, base.text_encoder.config.vocab_size


def same(first: tuple, second: tuple) -> bool:
    return torch.equal(first[1], second[1]) and first[0] == second[0] and first[2:] == second[2:]


def test_a_stock_pipeline_expands_a_trigger_into_all_its_vectors(base: StableDiffusion) -> None:
    ids = add_tokens(base, "<rex>", vectors(3))
    prompt = base.pipeline.maybe_convert_prompt("a <rex> dog", base.tokenizer)
    assert prompt == "a <rex> <rex>_1 <rex>_2 dog"
    found = base.tokenizer(prompt).input_ids
    assert found[2:5] == ids == token_ids(base, "<rex>")
    assert torch.equal(base.text_encoder.get_input_embeddings().weight[ids], vectors(3))


@pytest.mark.parametrize("order", [["<rex>", "<tom>"], ["<tom>", "<rex>"]])
def test_removing_tokens_restores_tokenizer_and_matrix(base: StableDiffusion, order: list[str]) -> None:
    before = state(base)
    add_tokens(base, "<rex>", vectors(2))
    add_tokens(base, "<tom>", vectors(3, seed=1))
    for trigger in order:
        remove_tokens(base, trigger)
    assert same(state(base), before)


def test_the_remaining_trigger_keeps_its_vectors(base: StableDiffusion) -> None:
    add_tokens(base, "<rex>", vectors(2))
    add_tokens(base, "<tom>", vectors(3, seed=1))
    remove_tokens(base, "<rex>")
    ids = token_ids(base, "<tom>")
    assert base.tokenizer("<tom> <tom>_1 <tom>_2").input_ids[1:-1] == ids
    assert torch.equal(base.text_encoder.get_input_embeddings().weight[ids], vectors(3, seed=1))
    assert base.tokenizer.decode(ids[:1]) == "<tom>"
    assert len(base.tokenizer) == base.text_encoder.get_input_embeddings().num_embeddings


def test_the_rest_of_the_prompt_reads_as_before(base: StableDiffusion) -> None:
    before = base.tokenizer("a photo of a dog, on grass").input_ids
    add_tokens(base, "<rex>", vectors(2))
    assert base.tokenizer("a photo of a dog, on grass").input_ids == before
    remove_tokens(base, "<rex>")
    assert base.tokenizer("a photo of a dog, on grass").input_ids == before


def test_case_does_not_matter_in_prompts(base: StableDiffusion) -> None:
    ids = add_tokens(base, "<Rex>", vectors(1))
    assert base.tokenizer("a <rex> dog").input_ids[2:3] == ids
    assert base.tokenizer("a <Rex> dog").input_ids[2:3] == ids


@pytest.mark.parametrize(
    "trigger", ["rex", "<re x>", "<rex:1>", "<>", "", "<r(e)x>", "<a><b>", "<rex>_1", None, "<a\n>"]
)
def test_malformed_triggers_are_refused(trigger: str) -> None:
    with pytest.raises(InputError, match="angle brackets"):
        check_trigger(trigger)


def test_a_known_word_or_a_trigger_in_use_is_refused(base: StableDiffusion) -> None:
    add_tokens(base, "<rex>", vectors(2))
    before = state(base)
    for trigger in ("<rex>", "<REX>"):
        with pytest.raises(InputError, match="already a word"):
            add_tokens(base, trigger, vectors(1))
    assert same(state(base), before)


@pytest.mark.parametrize("bad", [torch.zeros(2, WIDTH + 1), torch.zeros(0, WIDTH), torch.zeros(WIDTH)])
def test_vectors_that_do_not_fit_are_refused(base: StableDiffusion, bad: torch.Tensor) -> None:
    before = state(base)
    with pytest.raises(InputError, match="takes"):
        add_tokens(base, "<rex>", bad)
    assert same(state(base), before)


def test_removing_what_is_not_there_is_refused(base: StableDiffusion) -> None:
    with pytest.raises(InputError, match="not in this base"):
        remove_tokens(base, "<rex>")
