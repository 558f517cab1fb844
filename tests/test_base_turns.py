"""Prompts that change from step to step, BREAK, and words of other tools that are named."""

import pytest
import torch

from spectral_fusion.base.prompt import weigh_parts
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.base.turns import prompts_by_step, settled, unknown_words
from spectral_fusion.errors import InputError
from spectral_fusion.generation import GenerateConfig, generate
from words import encode_prompts


@pytest.mark.parametrize(
    ("prompt", "steps"),
    [
        ("a [red:blue:0.5] dog", ["a red dog", "a red dog", "a blue dog", "a blue dog"]),
        ("a [red:blue:3] dog", ["a red dog"] * 3 + ["a blue dog"]),
        ("a dog[ on grass:0.25]", ["a dog"] + ["a dog on grass"] * 3),
        ("a dog[ on grass::.75]", ["a dog on grass"] * 3 + ["a dog"]),
        ("a [dog|cat|car]", ["a dog", "a cat", "a car", "a dog"]),
        ("[a|b] [c:d:0.5]", ["a c", "b c", "a d", "b d"]),
        ("[[a|b]:c:0.5]", ["a", "b", "c", "c"]),
        ("[(red:1.3):blue:0.5]", ["(red:1.3)"] * 2 + ["blue"] * 2),
        ("a [red] (dog:1.3) [ugly: no]", ["a [red] (dog:1.3) [ugly: no]"] * 4),
        (r"\\[a|b\\]".replace("\\\\", "\\"), [r"\\[a|b\\]".replace("\\\\", "\\")] * 4),
    ],
)
def test_what_a_prompt_is_in_each_step(prompt: str, steps: list[str]) -> None:
    assert prompts_by_step(prompt, 4) == steps
    assert "|" in prompt or settled(prompt) == steps[-1]


def test_more_prompts_than_anyone_means_are_refused() -> None:
    many = "|".join(f"colour {number}" for number in range(100))
    with pytest.raises(InputError, match="forms"):
        prompts_by_step(f"a [{many}] dog", 100)


def test_a_prompt_that_changes_draws_what_its_parts_say(shared_base: StableDiffusion) -> None:
    def drawn(prompt: str) -> bytes:
        config = GenerateConfig(prompt, num_inference_steps=4, guidance_scale=3.0, seed=1)
        return generate(shared_base, config)[0].image.tobytes()

    red, blue = drawn("a red dog"), drawn("a blue dog")
    assert drawn("a [red:blue:0] dog") == blue
    assert drawn("a [red:blue:4] dog") == red
    assert drawn("a [red:blue:0.5] dog") not in (red, blue)
    assert drawn("a [red|blue] dog") not in (red, blue)


def test_break_begins_a_new_run_of_the_text_encoder(shared_base: StableDiffusion) -> None:
    assert weigh_parts("(a dog BREAK on:1.5) grass") == [[("a dog ", 1.5)], [(" on", 1.5), (" grass", 1.0)]]
    assert weigh_parts("BREAK") == [[("", 1.0)]]
    assert weigh_parts("BREAKFAST") == [[("BREAKFAST", 1.0)]]
    whole, first, second = (encode_prompts(shared_base, [text])[0] for text in ("a dog BREAK a cat", "a dog", "a cat"))
    assert torch.equal(whole, torch.cat([first, second]))
    condition = shared_base.condition(["ugly", "a dog BREAK a cat"], weighted=True)
    assert condition.embeds.shape[1] == 2 * shared_base.texts["text_encoder"].max_length


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a dog AND a cat", ["AND"]),
        ("a __colour__ dog", ["__name__"]),
        ("a {red|blue} dog", ["{a|b}"]),
        ("a [red|blue] {dog} ANDROID snake_case a|b \\{a|b\\}", []),
    ],
)
def test_words_of_other_tools_that_are_plain_text_are_named(prompt: str, named: list[str]) -> None:
    found = unknown_words(prompt)
    assert len(found) == len(named)
    assert all(name in line for name, line in zip(named, found, strict=True))
