"""Prompt weights, long prompts, triggers of several vectors, <lora:…> tags, unknown concepts."""

import pytest
import torch

from spectral_fusion.base.prompt import take_lora_tags, weigh
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from tiny import TEXT_WIDTH, tiny_base
from words import add_tokens, encode_prompts, remove_tokens


def stock(base: StableDiffusion, prompt: str) -> torch.Tensor:
    with torch.no_grad():
        return base.pipeline.encode_prompt(prompt, "cpu", 1, False)[0]


def with_rex(base: StableDiffusion, vectors: int = 2) -> StableDiffusion:
    add_tokens(base, "<rex>", torch.randn(vectors, TEXT_WIDTH, generator=torch.Generator().manual_seed(0)))
    return base


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a red dog", [("a red dog", 1)]),
        ("", [("", 1)]),
        ("a (red:1.3) dog", [("a ", 1), ("red", 1.3), (" dog", 1)]),
        ("(a:.5)(b:2)", [("a", 0.5), ("b", 2)]),
        ("((a)) [b]", [("a", 1.1**2), (" ", 1), ("b", 1 / 1.1)]),
        ("(a (b:1.5) c)", [("a ", 1.1), ("b", 1.65), (" c", 1.1)]),
        (r"\(a\) \[b\] \\", [(r"(a) [b] " + "\\", 1)]),
        ("(open", [("open", 1.1)]),
        ("shut) :]", [("shut) :]", 1)]),
        ("(a photo: nice)", [("a photo: nice", 1.1)]),
        ('it\'s c++, 5:30 - "quoted".', [('it\'s c++, 5:30 - "quoted".', 1)]),
    ],
)
def test_weights(prompt: str, parts: list[tuple[str, float]]) -> None:
    found = weigh(prompt)
    assert [text for text, _ in found] == [text for text, _ in parts]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in parts])


@pytest.mark.parametrize("prompt", ["a photo of a red dog", "", 'Zürich, c++ (2) "no" - 5:30!', "<3 a <b"])
def test_a_prompt_without_weights_is_encoded_as_stock_diffusers_does(shared_base: StableDiffusion, prompt: str) -> None:
    escaped = prompt.replace("(", r"\(").replace(")", r"\)")
    assert torch.allclose(encode_prompts(shared_base, [escaped]), stock(shared_base, prompt), atol=1e-6)


def test_a_weight_moves_the_word_away_from_the_empty_prompt(shared_base: StableDiffusion) -> None:
    empty, plain, strong = encode_prompts(shared_base, ["", "a red dog", "a (red:1.5) dog"])
    red = 2  # start, a, red
    assert torch.allclose(strong[red] - empty[red], 1.5 * (plain[red] - empty[red]), atol=1e-5)
    others = [i for i in range(len(plain)) if i != red]
    assert torch.allclose(strong[others], plain[others], atol=1e-6)


@pytest.mark.parametrize("limit", [77, 32])
def test_long_prompts_are_read_to_the_end(limit: int) -> None:
    base = tiny_base(max_length=limit)
    text = "a red dog, " * 20
    red, green = encode_prompts(base, [text + "a red ball", text + "a green ball"])
    assert red.shape == green.shape
    assert red.shape[0] % limit == 0
    assert red.shape[0] > limit
    assert not torch.allclose(red, green)
    assert torch.equal(red[:limit], green[:limit])


def test_a_short_prompt_is_padded_to_the_length_of_a_long_one(shared_base: StableDiffusion) -> None:
    embeddings = encode_prompts(shared_base, ["a dog, " * 40, "ugly"])
    assert embeddings.shape[0] == 2
    assert torch.equal(embeddings[1, :77], encode_prompts(shared_base, ["ugly"])[0])
    assert torch.equal(embeddings[1, 77:154], encode_prompts(shared_base, [""])[0])


@pytest.mark.parametrize("prompt", ["a photo of <rex>", "<rex>, <rex> and a cat"])
def test_a_trigger_means_all_its_vectors_as_in_stock_diffusers(base: StableDiffusion, prompt: str) -> None:
    with_rex(base, vectors=3)
    assert torch.allclose(encode_prompts(base, [prompt]), stock(base, prompt), atol=1e-6)
    spelled = prompt.replace("<rex>", "<rex> <rex>_1 <rex>_2")
    assert base.pipeline.maybe_convert_prompt(prompt, base.tokenizer) == spelled


def test_a_trigger_can_be_weighed(base: StableDiffusion) -> None:
    with_rex(base)
    plain, strong = encode_prompts(base, ["a <rex> dog", "a (<rex>:1.4) dog"])
    changed = (plain != strong).any(dim=1).nonzero().flatten().tolist()
    assert changed == [2, 3]


def test_an_unknown_concept_suggests_the_nearest(base: StableDiffusion) -> None:
    with pytest.raises(InputError, match="add its concept"):
        encode_prompts(base, ["a <rex> dog"])
    with_rex(base)
    assert base.triggers() == ["<rex>"]
    with pytest.raises(InputError, match="did you mean <rex>"):
        encode_prompts(base, ["a <rxe> dog"])
    remove_tokens(base, "<rex>")
    assert base.triggers() == []


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize(("trigger", "written"), [("<rex>", "<REX>"), ("<caf\u00e9>", "<Cafe\u0301>")])
def test_case_and_unicode_form_of_a_trigger_do_not_matter(
    base: StableDiffusion, vectors: int, trigger: str, written: str
) -> None:
    add_tokens(base, trigger, torch.randn(vectors, TEXT_WIDTH, generator=torch.Generator().manual_seed(0)))
    known, typed = encode_prompts(base, [f"a {trigger} dog", f"a {written} dog"])
    assert torch.equal(known, typed)
    assert torch.equal(base.condition([f"a {written} dog"]).embeds[0], known)
    positions = base.word_positions(f"a {written} dog", [trigger])
    assert positions == base.word_positions(f"a {trigger} dog", [trigger]) != []
    with pytest.raises(InputError, match="already a word"):
        add_tokens(base, written.upper(), torch.zeros(1, TEXT_WIDTH))


def test_lora_tags_name_concepts() -> None:
    assert take_lora_tags("a <lora:Rex:0.5> dog <lora:rex:0.25>") == ("a dog", {"Rex": 0.75})
    assert take_lora_tags("a <rex> dog <lora:rex:0.8> on grass<lora:tom>") == (
        "a <rex> dog on grass",
        {"rex": 0.8, "tom": 1.0},
    )
    assert take_lora_tags("a  dog") == ("a  dog", {})
    assert take_lora_tags("<lora:rex:0.5:0.5> a dog")[1] == {"rex": 0.5}
    with pytest.raises(InputError, match=r"<lora:rex:0\.8>"):
        take_lora_tags("<lora:rex:0.5:0.8>")
    with pytest.raises(InputError, match="lora:rex:much"):
        take_lora_tags("<lora:rex:much>")
