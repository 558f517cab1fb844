"""What has no effect is said: settings, words of other tools, texts that are longer than a base reads."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from spectral_fusion.base.flow import FlowTransformer
from spectral_fusion.base.flux import Flux
from spectral_fusion.base.flux2 import Flux2Klein
from spectral_fusion.base.regions import Region
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.base.sd3 import StableDiffusion3
from spectral_fusion.base.z_image import ZImage
from spectral_fusion.concept.images import Photo
from spectral_fusion.errors import InputError
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.generation.unheeded import unheeded
from spectral_fusion.training import TrainConfig
from spectral_fusion.training.captions import cut_captions
from tiny_flow import tiny_flux, tiny_klein, tiny_sd3, tiny_z_image
from training import resolved

FAMILIES: dict[str, Callable[[], FlowTransformer]] = {
    "sd3": lambda: StableDiffusion3(tiny_sd3()),
    "flux": lambda: Flux(tiny_flux()),
    "flux2-klein": lambda: Flux2Klein(tiny_klein()),
    "z-image": lambda: ZImage(tiny_z_image()),
}
LONG = "a dog on grass, " * 300


@pytest.fixture(scope="module", params=FAMILIES)
def flow(request: pytest.FixtureRequest) -> FlowTransformer:
    return FAMILIES[request.param]()


def test_a_text_that_is_longer_than_a_base_reads_is_said(flow: FlowTransformer) -> None:
    assert flow.unread("a dog") == 0
    assert flow.unread(LONG) > 0
    (note,) = unheeded(flow, GenerateConfig(LONG))
    assert "tokens of the prompt are not read" in note


def test_what_is_counted_as_unread_changes_nothing(flow: FlowTransformer) -> None:
    """The last words beyond the count do not reach the denoiser, and those within do."""
    words = LONG.split()
    whole = len(words)
    while flow.unread(" ".join(words[:whole])):
        whole -= 1
    text = " ".join(words[:whole])
    assert not flow.condition([text]).embeds.equal(flow.condition([" ".join(words[: whole - 3])]).embeds)
    longer = [f"{LONG} {LONG} {word}" for word in ("cat", "snow")]
    assert flow.condition([longer[0]]).embeds.equal(flow.condition([longer[1]]).embeds)


def test_captions_are_measured_with_their_trigger(flow: FlowTransformer, shared_base: StableDiffusion) -> None:
    config = resolved(TrainConfig(name="rex", class_word="dog", rank=4))
    first, last = Photo(Path("0.png"), 32, 32, f"<rex> {LONG}"), Photo(Path("1.png"), 32, 32, f"{LONG} <rex>")
    assert cut_captions(flow, [Photo(Path("2.png"), 32, 32, "a dog")], config) == []
    (line,) = cut_captions(flow, [first], config)
    assert "1 captions are longer" in line
    with pytest.raises(InputError, match=r"1\.png has <rex> behind all that this base reads"):
        cut_captions(flow, [first, last], config)
    assert cut_captions(shared_base, [first, last], config) == []


def test_brackets_and_negative_prompts_where_they_are_text_or_nothing(flow: FlowTransformer) -> None:
    said = " ".join(unheeded(flow, GenerateConfig("a (red:1.3) dog BREAK a cat", "ugly")))
    assert "weights such as (word:1.3) are plain text" in said
    assert "BREAK is plain text" in said
    assert ("takes none" in said) == (flow.family == "flux")
    assert unheeded(flow, GenerateConfig("a \\(red\\) dog")) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "a dog AND a cat"}, "AND of other tools"),
        ({"negative_prompt": "__bad__"}, "__name__ of other tools"),
        ({"regions": (Region("a {red|blue} dog", (0.0, 0.0, 0.5, 1.0)),)}, "{a|b} of other tools"),
        ({"prompt": "a dog <hypernet:x:1>"}, "<word:...> of other tools"),
        ({"prompt": "a <random:red,blue> dog"}, "<word:...> of other tools"),
        ({"prompt": "a <segment[1]:face> dog"}, "<word:...> of other tools"),
        ({"prompt": "a dog, embedding:easynegative"}, "embedding:name of other tools"),
        ({"negative_prompt": "ugly", "guidance_scale": 1.0}, "no effect at a guidance scale of 1"),
    ],
    ids=str,
)
def test_it_is_logged_where_pictures_are_made(
    shared_base: StableDiffusion, caplog: pytest.LogCaptureFixture, changes: dict, words: str
) -> None:
    given = {"prompt": "a dog", "num_inference_steps": 1, "width": 32, "height": 32} | changes
    with caplog.at_level(logging.WARNING, "spectral_fusion.generation"):
        generate(shared_base, GenerateConfig(**given))
    assert words in caplog.text


def test_what_has_an_effect_is_not_mentioned(shared_base: StableDiffusion) -> None:
    assert unheeded(shared_base, GenerateConfig(f"(a:1.2) [red|blue] dog BREAK {LONG}", "ugly, embedding")) == []
