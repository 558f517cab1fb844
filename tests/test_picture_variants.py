"""Odd variants of other tools' settings: nothing becomes a prompt that is none, and nothing is lost without a word."""

import json
from typing import Any

import pytest

from spectral_fusion.errors import InputError
from spectral_fusion.generation import GenerateConfig
from spectral_fusion.picture import Parameters

LINE = "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512"


def swarm(**values: Any) -> str:
    return json.dumps({"sui_image_params": {"prompt": "a dog", "steps": 20, "seed": 1} | values})


def invoke(**values: Any) -> str:
    return json.dumps({"app_version": "5.6", "positive_prompt": "a dog", "steps": 30, "seed": 1} | values)


def graph(**nodes: Any) -> str:
    latents = {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512}}
    told = {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog"}}
    inputs = {"seed": 1, "steps": 20, "cfg": 7, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    inputs |= {"positive": ["2", 0], "negative": ["4", 0], "latent_image": ["3", 0]}
    sampler = {"class_type": "KSampler", "inputs": inputs}
    return json.dumps({"1": sampler, "2": told, "3": latents} | {key[1:]: node for key, node in nodes.items()})


def test_lines_of_windows_leave_nothing_in_the_prompt() -> None:
    found = Parameters.parse(f"a dog\r\nNegative prompt: ugly\r\n{LINE}\r\n")
    assert (found.prompt, found.negative_prompt) == ("a dog", "ugly")
    ours = Parameters("a\r\ndog", "b\r", {"Steps": "1", "Version": "spectral-fusion 1"})
    assert Parameters.parse(str(ours)) == ours


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        (swarm(prompt=None, negativeprompt=None), ("", "")),
        (swarm(prompt=["a dog", "on grass"]), ("a dog, on grass", "")),
        (invoke(negative_prompt=None), ("a dog", "")),
        (invoke(positive_prompt=7), ("7", "")),
    ],
)
def test_what_is_no_text_is_no_prompt(text: str, prompts: tuple[str, str]) -> None:
    """Once a missing negative prompt was the word None."""
    found = Parameters.parse(text)
    assert (found.prompt, found.negative_prompt) == prompts


def test_numbers_as_text_are_numbers() -> None:
    assert Parameters.parse(swarm(width="512", height="768")).settings["Size"] == "512x768"
    assert Parameters.parse(swarm(width=512.0, height=768)).settings["Size"] == "512x768"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (invoke(cfg_scale=[7, 7]), "cfg_scale: [7, 7]"),
        (invoke(steps={"first": 3}), "steps: {"),
        (swarm(width="wide", height=512), "width: 'wide'"),
        (swarm(seed=-1), "seed '-1'"),
        (swarm(seed=2**64), "seed '184467"),
        (f"a dog\n{LINE.replace('Seed: 1', 'Seed: -1')}", "seed '-1'"),
    ],
)
def test_what_cannot_be_taken_over_is_named_and_the_rest_is(text: str, named: str) -> None:
    found = Parameters.parse(text)
    assert any(phrase.startswith(named) for phrase in found.left_out), found.left_out
    assert GenerateConfig.from_parameters(found).prompt == "a dog"


def test_a_second_pass_of_automatic1111_is_restored_and_not_named_as_lost() -> None:
    found = Parameters.parse(f"a dog\n{LINE}, Denoising strength: 0.3, Hires upscale: 1.5, Hires upscaler: Latent")
    config = GenerateConfig.from_parameters(found)
    assert (config.upscale, config.upscale_strength) == (1.5, 0.3)
    assert found.left_out == ("Hires upscaler: 'Latent'",)


def test_comfyui_writes_numbers_that_are_no_json() -> None:
    told = {"class_type": "CLIPTextEncode", "inputs": {"text": "NaN cats, ugly"}, "is_changed": ["@"]}
    text = graph(_4=told).replace('"@"', "NaN")
    assert "NaN]" in text
    found = Parameters.parse(text)
    assert (found.prompt, found.negative_prompt) == ("a dog", "NaN cats, ugly")


def test_a_conditioning_of_nothing_is_no_prompt() -> None:
    """Once the negative prompt was then the positive one, and the picture the opposite of what was asked for."""
    found = Parameters.parse(graph(_4={"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["2", 0]}}))
    assert (found.prompt, found.negative_prompt, found.left_out) == ("a dog", "", ())


@pytest.mark.parametrize(
    "said",
    [
        {"c": "a dog", "uc": "", "seed": 1, "steps": 20, "scale": 7, "sampler": "Euler", "size": "512x512"},
        {"prompt": "a dog", "seed": 1, "num_inference_steps": 20, "guidance_scale": 7.5},
    ],
)
def test_other_tools_are_refused_and_not_taken_for_one_that_is_known(said: dict) -> None:
    with pytest.raises(InputError, match="of no tool that is known here"):
        Parameters.parse(json.dumps(said))
