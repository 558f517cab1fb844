"""Triggers: adding them, what a stock pipeline makes of them, and removing them without a trace."""

import pytest
import torch
from diffusers import StableDiffusionPipeline

from spectral_fusion.errors import InputError
from spectral_fusion.pipeline.tokens import add_tokens, check_trigger, remove_tokens, token_ids

WIDTH = 64


def vectors(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def state(pipeline: StableDiffusionPipeline) -> tuple[str, torch.Tensor, int, int]:
    embedding = pipeline.text_encoder.get_input_embeddings()
    backend = pipeline.tokenizer.backend_tokenizer.to_str()
    return backend, embedding.weight.detach().clone(), embedding.num_embeddings, pipeline.text_encoder.config.vocab_size


def same(first: tuple, second: tuple) -> bool:
    return torch.equal(first[1], second[1]) and first[0] == second[0] and first[2:] == second[2:]


def test_a_stock_pipeline_expands_a_trigger_into_all_its_vectors(pipeline: StableDiffusionPipeline) -> None:
    ids = add_tokens(pipeline, "<rex>", vectors(3))
    prompt = pipeline.maybe_convert_prompt("a <rex> dog", pipeline.tokenizer)
    assert prompt == "a <rex> <rex>_1 <rex>_2 dog"
    found = pipeline.tokenizer(prompt).input_ids
    assert found[2:5] == ids == token_ids(pipeline, "<rex>")
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[ids], vectors(3))


@pytest.mark.parametrize("order", [["<rex>", "<tom>"], ["<tom>", "<rex>"]])
def test_removing_tokens_restores_tokenizer_and_matrix(pipeline: StableDiffusionPipeline, order: list[str]) -> None:
    before = state(pipeline)
    add_tokens(pipeline, "<rex>", vectors(2))
    add_tokens(pipeline, "<tom>", vectors(3, seed=1))
    for trigger in order:
        remove_tokens(pipeline, trigger)
    assert same(state(pipeline), before)


def test_the_remaining_trigger_keeps_its_vectors(pipeline: StableDiffusionPipeline) -> None:
    add_tokens(pipeline, "<rex>", vectors(2))
    add_tokens(pipeline, "<tom>", vectors(3, seed=1))
    remove_tokens(pipeline, "<rex>")
    ids = token_ids(pipeline, "<tom>")
    assert pipeline.tokenizer("<tom> <tom>_1 <tom>_2").input_ids[1:-1] == ids
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[ids], vectors(3, seed=1))
    assert pipeline.tokenizer.decode(ids[:1]) == "<tom>"
    assert len(pipeline.tokenizer) == pipeline.text_encoder.get_input_embeddings().num_embeddings


def test_the_rest_of_the_prompt_reads_as_before(pipeline: StableDiffusionPipeline) -> None:
    before = pipeline.tokenizer("a photo of a dog, on grass").input_ids
    add_tokens(pipeline, "<rex>", vectors(2))
    assert pipeline.tokenizer("a photo of a dog, on grass").input_ids == before
    remove_tokens(pipeline, "<rex>")
    assert pipeline.tokenizer("a photo of a dog, on grass").input_ids == before


def test_case_does_not_matter_in_prompts(pipeline: StableDiffusionPipeline) -> None:
    ids = add_tokens(pipeline, "<Rex>", vectors(1))
    assert pipeline.tokenizer("a <rex> dog").input_ids[2:3] == ids
    assert pipeline.tokenizer("a <Rex> dog").input_ids[2:3] == ids


@pytest.mark.parametrize(
    "trigger", ["rex", "<re x>", "<rex:1>", "<>", "", "<r(e)x>", "<a><b>", "<rex>_1", None, "<a\n>"]
)
def test_malformed_triggers_are_refused(trigger: str) -> None:
    with pytest.raises(InputError, match="angle brackets"):
        check_trigger(trigger)


def test_a_known_word_or_a_trigger_in_use_is_refused(pipeline: StableDiffusionPipeline) -> None:
    add_tokens(pipeline, "<rex>", vectors(2))
    before = state(pipeline)
    for trigger in ("<rex>", "<REX>"):
        with pytest.raises(InputError, match="already a word"):
            add_tokens(pipeline, trigger, vectors(1))
    assert same(state(pipeline), before)


@pytest.mark.parametrize("bad", [torch.zeros(2, WIDTH + 1), torch.zeros(0, WIDTH), torch.zeros(WIDTH)])
def test_vectors_that_do_not_fit_are_refused(pipeline: StableDiffusionPipeline, bad: torch.Tensor) -> None:
    before = state(pipeline)
    with pytest.raises(InputError, match="takes"):
        add_tokens(pipeline, "<rex>", bad)
    assert same(state(pipeline), before)


def test_removing_what_is_not_there_is_refused(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(InputError, match="not in this pipeline"):
        remove_tokens(pipeline, "<rex>")
