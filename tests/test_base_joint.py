"""Regions and bound concepts on transformers with joint attention: equal to the plain way where they should be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor
from typer.testing import CliRunner

from concepts import make_concept
from spectral_fusion.adapter.masks import Masks
from spectral_fusion.adapter.placed import PlacedDelta, Placement, placed
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.flow import JOINT_ATTENTION, FlowTransformer
from spectral_fusion.base.flux import Flux
from spectral_fusion.base.flux2 import Flux2Klein
from spectral_fusion.base.merged import MergedWeights
from spectral_fusion.base.painted import tensor_text
from spectral_fusion.base.regions import Region
from spectral_fusion.base.sd3 import StableDiffusion3
from spectral_fusion.base.z_image import ZImage
from spectral_fusion.cli import app
from spectral_fusion.concept import Concept
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.generation.bound import Live, concepts_known
from spectral_fusion.generation.draw import Pass, draw
from spectral_fusion.generation.found import find_places
from spectral_fusion.picture import read_parameters
from spectral_fusion.spectral import Factors
from tiny_flow import tiny_flux, tiny_klein, tiny_sd3, tiny_z_image

BASES: dict[str, Callable[[], FlowTransformer]] = {
    "sd3": lambda: StableDiffusion3(tiny_sd3()),
    "flux": lambda: Flux(tiny_flux()),
    "flux2-klein": lambda: Flux2Klein(tiny_klein()),
    "z-image": lambda: ZImage(tiny_z_image()),
}
FAMILIES = pytest.mark.parametrize("family", list(BASES))
ALL, LEFT, RIGHT = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
PROMPT = "a <rex> dog and a <tom> cat"
SETTINGS: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 2, "sampler": "Euler"}
CONFIG = GenerateConfig(PROMPT, "ugly", guidance_scale=3.0, **SETTINGS)


@pytest.fixture(scope="module")
def bases() -> dict[str, FlowTransformer]:
    return {family: make() for family, make in BASES.items()}


def concept(base: FlowTransformer, name: str = "rex", seed: int = 0) -> Concept:
    return make_concept(base, name, vectors=0, seed=seed, band=seed, size=0.3, targets=JOINT_ATTENTION)


def latents(base: FlowTransformer, subjects: dict[Concept, float], *regions: Region, **changes: Any) -> Tensor:
    config = replace(CONFIG, regions=regions, **changes)
    size = (config.height or 32, config.width or 32)
    with concepts_known(base, subjects):
        return draw(base, config, Live.of(subjects), Pass(size, 0))


def answer(
    base: FlowTransformer, regions: list[Region], deltas: list[PlacedDelta], own: Condition, first: int = 0
) -> Tensor:
    """The denoiser's answer to noise of 32 px; `first`: of the rows of noise that it begins with."""
    shape = base.latent_shape(32, 32)
    noisy = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))[first : first + len(own)]
    kinds = {name: base.layer_kind(name) for delta in deltas for name in delta.layers}
    masks = Masks(regions, *shape[1:])
    texts = [base.condition([region.prompt]) for region in regions]
    with (
        placed(base.layers(), kinds, deltas, masks) as placement,
        base.read_places(texts, placement),
        torch.no_grad(),
    ):
        return base.predict(noisy, torch.tensor(500.0), own)


def close(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@FAMILIES
def test_every_layer_is_known_by_what_it_sees(bases: dict[str, FlowTransformer], family: str) -> None:
    """A delta on all of them, in a place that is everything, is as if it were in the weights: each finds its tokens."""
    base, own = bases[family], bases[family].condition([PROMPT])
    region, source = Region(PROMPT, ALL), torch.Generator().manual_seed(0)
    factors = {}
    for name, layer in base.layers().items():
        rows, columns = layer.weight.flatten(1).shape
        pair = (torch.randn(*shape, generator=source) for shape in ((rows, 1), (1, columns)))
        factors[name] = Factors(*(0.1 * part for part in pair))
    plain = answer(base, [region], [], own)
    inside, everywhere = (answer(base, [region], [PlacedDelta(factors, place=place)], own) for place in (0, None))
    with MergedWeights(base, list(factors), factors.__getitem__).present():
        merged = answer(base, [region], [], own)
    close(inside, merged)
    close(everywhere, merged)
    assert torch.equal(answer(base, [region], [], own), plain)
    assert not torch.allclose(merged, plain, atol=1e-2)


@FAMILIES
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_one_region_that_is_everything_is_the_plain_way(
    bases: dict[str, FlowTransformer], family: str, guidance_scale: float
) -> None:
    """Without concepts bit for bit, but for Z-Image, which is asked row by row; live deltas and merged ones round
    differently. Hence 1e-5."""
    base = bases[family]
    plain = latents(base, {}, prompt="a dog", guidance_scale=guidance_scale)
    everything = Region("a dog", ALL)
    same = latents(base, {}, everything, prompt="a dog", guidance_scale=guidance_scale)
    close(same, plain)
    assert torch.equal(same, plain) or family == "z-image"
    rex, tom = concept(base), concept(base, "tom", seed=1)
    bound = Region(PROMPT, ALL, concepts={"rex": 0.9, "tom": -0.7})
    found = latents(base, {rex: 1.0, tom: 1.0}, bound, guidance_scale=guidance_scale)
    everywhere = latents(base, {rex: 0.9, tom: -0.7}, guidance_scale=guidance_scale)
    fusion = fuse(base, {rex: 0.9, tom: -0.7})
    merged = latents(base, {}, guidance_scale=guidance_scale)
    fusion.undo()
    close(found, merged)
    close(everywhere, merged)
    assert not torch.allclose(merged, latents(base, {rex: 0.0, tom: 0.0}, guidance_scale=guidance_scale), atol=1e-3)


LAST = {"sd3": "proj_out", "flux": "proj_out", "flux2-klein": "proj_out", "z-image": "all_final_layer.2-1.linear"}


@FAMILIES
def test_one_layer_alone_changes_nothing_outside_its_place(bases: dict[str, FlowTransformer], family: str) -> None:
    """For the last layer that sees the picture's tokens, each on its own; not a bit of what lies outside is changed."""
    base = bases[family]
    name = f"transformer.{LAST[family]}"
    rows, columns = base.layers()[name].weight.shape
    factors = Factors(torch.ones(rows, 1), torch.ones(1, columns))
    region, own = Region("a cat", LEFT), base.condition(["", "a dog"])
    plain, found = (answer(base, [region], [PlacedDelta({name: factors}, w, 0)], own) for w in (0.0, 1.0))
    half = plain.shape[-1] // 2
    assert torch.equal(found[..., half:], plain[..., half:])
    assert (found[..., :half] != plain[..., :half]).any(1).all()


def test_text_is_changed_for_its_own_place_alone(bases: dict[str, FlowTransformer]) -> None:
    """SD 3's last block: a delta on what texts say there is heard where its own text is read, and nowhere else."""
    base, regions, own = (
        bases["sd3"],
        [Region("a cat", LEFT), Region("a dog", RIGHT)],
        bases["sd3"].condition(["a dog"]),
    )
    name = "transformer.transformer_blocks.1.attn.add_v_proj"
    rows, columns = base.layers()[name].weight.shape
    factors = Factors(torch.ones(rows, 1), torch.ones(1, columns))
    plain, found = (answer(base, regions, [PlacedDelta({name: factors}, w, 1)], own) for w in (0.0, 1.0))
    assert torch.equal(found[..., :8], plain[..., :8])
    assert (found[..., 8:] != plain[..., 8:]).any(1).all()


def test_two_attentions_and_norms_as_in_version_35(bases: dict[str, FlowTransformer]) -> None:
    """And half precision, in which the numbers of places are as the model's."""
    pipeline = tiny_sd3()
    torch.manual_seed(0)
    settings = dict(pipeline.transformer.config) | {"dual_attention_layers": (0,), "qk_norm": "rms_norm"}
    pipeline.transformer = SD3Transformer2DModel(**settings).eval()
    base = StableDiffusion3(pipeline)
    own, name = base.condition(["a dog"]), "transformer.transformer_blocks.0.attn2.to_v"
    plain = latents(base, {}, prompt="a dog")
    assert torch.equal(latents(base, {}, Region("a dog", ALL), prompt="a dog"), plain)
    assert base.layer_kind(name) == "image"
    assert base.layer_kind("transformer.transformer_blocks.0.norm1.linear") == "whole"
    regions = [Region("a cat", LEFT), Region("a dog", painted=tensor_text(torch.eye(8)))]
    full = answer(base, regions, [], own)
    base.cast(torch.bfloat16)
    half = answer(base, regions, [], base.condition(["a dog"]))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0, atol=0.1 * full.abs().max().item())


@FAMILIES
def test_each_row_of_a_batch_is_as_alone(bases: dict[str, FlowTransformer], family: str) -> None:
    """So the guided and the unguided half are split into places alike, each with its own texts."""
    base, rex = bases[family], concept(bases[family])
    regions = [Region("a cat", LEFT), Region("a dog", (0.5, 0.5, 1, 1))]
    deltas = [PlacedDelta({name: rex.factors(name) for name in rex.layers}, place=1)]
    both = answer(base, regions, deltas, base.condition(["", "a dog"]))
    for row, prompt in enumerate(["", "a dog"]):
        close(answer(base, regions, deltas, base.condition([prompt]), row), both[row : row + 1])


@FAMILIES
def test_a_concept_acts_in_its_region_and_the_base_outside(bases: dict[str, FlowTransformer], family: str) -> None:
    """What attention carries over is little in one step; swapping sides swaps the change."""
    base, rex = bases[family], concept(bases[family])
    one_step: dict[str, Any] = {"prompt": "a dog", "num_inference_steps": 1}
    left, right = (
        latents(
            base, {rex: 1.0}, Region("a <rex> dog", box, concepts={"rex": 1.0}), prompt="a dog", num_inference_steps=1
        )
        for box in (LEFT, RIGHT)
    )
    nobody = latents(base, {}, Region("a dog", LEFT), **one_step)
    half = nobody.shape[-1] // 2
    changes = [(found - nobody).abs().mean((0, 1, 2)) for found in (left, right)]
    assert changes[0][:half].mean() > 1.5 * changes[0][half:].mean()
    assert changes[1][half:].mean() > 1.5 * changes[1][:half].mean()


@FAMILIES
def test_a_region_with_a_prompt_alone_changes_its_place_most(bases: dict[str, FlowTransformer], family: str) -> None:
    base = bases[family]
    plain = answer(base, [], [], base.condition(["a dog"]))
    found = answer(base, [Region("a blue cat", LEFT)], [], base.condition(["a dog"]))
    half = plain.shape[-1] // 2
    change = (found - plain).abs().mean((0, 1, 2))
    assert change[:half].mean() > change[half:].mean()


@FAMILIES
def test_processors_and_hooks_are_as_before_afterwards(bases: dict[str, FlowTransformer], family: str) -> None:
    base, rex = bases[family], concept(bases[family])
    attention = {n: m for n, m in base.denoiser.named_modules() if hasattr(m, "set_processor")}
    before = {name: module.processor for name, module in attention.items()}
    plain = latents(base, {}, prompt="a dog")

    def fail() -> None:
        with base.read_places([base.condition(["a dog"])], Placement([], Masks([Region("x", LEFT)], 16, 16))):
            assert any(attention[name].processor is not own for name, own in before.items())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    latents(base, {rex: 1.0}, Region("a <rex> dog", LEFT, concepts={"rex": 1.0}), prompt="a dog")
    with base.watch_words([[1]], (16, 16)):
        pass
    assert all(attention[name].processor is own for name, own in before.items())
    assert not any(layer._forward_hooks for layer in base.denoiser.modules())
    assert base.triggers() == []
    assert torch.equal(latents(base, {}, prompt="a dog"), plain)


@FAMILIES
def test_the_first_half_may_keep_the_pictures_own_text(bases: dict[str, FlowTransformer], family: str) -> None:
    base = bases[family]
    own, texts = base.condition(["ugly", "a dog"]), base.condition(["a cat"])
    noisy = torch.randn(1, *base.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
    noisy, time = noisy.expand(2, -1, -1, -1), torch.tensor(500.0)
    size = tuple(noisy.shape[2:])
    with torch.no_grad():
        plain = base.predict(noisy, time, own)
        with base.regions([Region("a cat", LEFT)], texts, size=size, guided=True):
            found = base.predict(noisy, time, own)
    close(found[:1], plain[:1])
    assert not torch.allclose(found[1:], plain[1:], atol=1e-4)


@FAMILIES
def test_words_are_watched(bases: dict[str, FlowTransformer], family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noting changes nothing; a random model attends to each word alike, and is asked to find places all the same."""
    base, subjects = bases[family], {concept(bases[family]): 1.0, concept(bases[family], "tom", seed=1): 1.0}
    with concepts_known(base, subjects):
        tokens = [base.word_positions(PROMPT, [f"<{name}>"]) for name in ("rex", "tom")]
        told = base.condition(["", PROMPT], weighted=True)
    assert all(tokens)
    assert not set(tokens[0]) & set(tokens[1])
    noisy = torch.randn(2, *base.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = base.predict(noisy, torch.tensor(500.0), told)
        with base.watch_words(tokens, tuple(noisy.shape[2:])) as maps:
            assert torch.equal(base.predict(noisy, torch.tensor(500.0), told), plain)
        found = maps()
    assert found is not None
    assert found.shape == (2, 8, 8)
    assert (found > 0).all()
    assert (found.sum(0) < 1).all()
    monkeypatch.setattr("spectral_fusion.generation.outline.CONTRAST", 1.0)
    regions = [Region(PROMPT, concepts={"rex": 1.0}), Region(PROMPT, concepts={"tom": 1.0})]
    with concepts_known(base, subjects):
        masks = find_places(base, CONFIG, Live.of(subjects), Pass((32, 32), 0), regions, subjects)
    assert masks is not None
    assert all(mask.any() for mask in masks)
    assert not (masks[0] * masks[1]).any()


@FAMILIES
def test_the_whole_way_with_detail_and_places_of_all_kinds(
    bases: dict[str, FlowTransformer], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectral_fusion.generation.outline.CONTRAST", 1.0)
    base = bases[family]
    subjects = {concept(base): 1.0, concept(base, "tom", seed=1): 1.0}
    soft = tensor_text(torch.linspace(0, 1, 64).view(8, 8))
    regions = (
        Region("a <rex> dog", LEFT, concepts={"rex": 1.0}),
        Region("", painted=soft, concepts={"tom": 0.8}),
        Region("a red ball", (0.6, 0.6, 0.9, 0.9)),
    )
    config = replace(CONFIG, regions=regions, detail=0.5, spans={"tom": (0.0, 0.5)})
    first, again = (generate(base, config, concepts=subjects)[0] for _ in range(2))
    assert first.image.size == (32, 32)
    assert first.image.tobytes() == again.image.tobytes()
    auto = replace(CONFIG, regions=(replace(regions[0], box=None), replace(regions[1], painted=None)), detail=0.5)
    picture = generate(base, auto, concepts=subjects)[0]
    assert picture.parameters.settings["Places"] == "found"


@FAMILIES
def test_subjects_are_drawn_apart_and_put_together(
    bases: dict[str, FlowTransformer], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectral_fusion.generation.outline.CONTRAST", 1.0)
    base = bases[family]
    subjects = {concept(base): 1.0, concept(base, "tom", seed=1): 1.0}
    regions = (Region("", LEFT, concepts={"rex": 1.0}), Region("", None, concepts={"tom": 0.8}))
    first, again = (
        generate(base, replace(CONFIG, regions=regions, composite=0.5), concepts=subjects)[0] for _ in range(2)
    )
    assert first.image.tobytes() == again.image.tobytes()
    assert {"Composite strength", "Places"} <= first.parameters.settings.keys()


@FAMILIES
def test_what_cannot_be_bound_is_refused_in_one_line(bases: dict[str, FlowTransformer], family: str) -> None:
    base, rex = bases[family], concept(bases[family])
    with pytest.raises(InputError, match=r"'rax', which is not loaded; did you mean 'rex'"):
        latents(base, {rex: 1.0}, Region(PROMPT, LEFT, concepts={"rax": 1.0}), prompt="a dog")
    with pytest.raises(InputError, match="<tom>"):
        latents(base, {rex: 1.0}, Region("a <tom> cat", LEFT, concepts={"rex": 1.0}), prompt="a dog")
    with pytest.raises(InputError, match=r"detail is 0\.4 and there are no regions"):
        generate(base, replace(CONFIG, prompt="a dog", detail=0.4))
    assert base.triggers() == []
    assert not any(layer._forward_hooks for layer in base.denoiser.modules())


def z_image_latents(base: FlowTransformer, *regions: Region, **changes: Any) -> Tensor:
    return latents(base, {}, *regions, **({"prompt": "a dog", "guidance_scale": 1.0} | changes))


def test_z_image_pads_pictures_and_texts_as_it_does_alone(bases: dict[str, FlowTransformer]) -> None:
    """36 px are 81 tokens, padded to 96; a long prompt has two runs of 32."""
    base, long = bases["z-image"], "a photo of a red dog on grass " * 2
    for prompt in ("a dog", long):
        plain = z_image_latents(base, prompt=prompt, height=36, width=36)
        close(z_image_latents(base, Region(prompt, ALL), height=36, width=36), plain)
    halves = [Region("a dog", LEFT), Region("a dog", RIGHT)]
    assert z_image_latents(base, *halves, height=36, width=36).isfinite().all()


def test_what_z_image_reads_in_one_place_does_not_depend_on_how_long_another_text_is(
    bases: dict[str, FlowTransformer],
) -> None:
    """Texts end where the picture begins, whatever their length; the miniature has one joint layer."""
    base, long = bases["z-image"], "a photo of a red dog on grass " * 2
    short, other = (
        z_image_latents(base, Region("a dog", LEFT), Region(text, RIGHT), num_inference_steps=1)
        for text in ("a blue cat", long)
    )
    close(short[..., :8], other[..., :8])
    assert not torch.allclose(short[..., 8:], other[..., 8:], atol=1e-3)


def test_more_text_than_z_image_counts_is_refused(bases: dict[str, FlowTransformer]) -> None:
    regions = [Region("dog " * 150, (x, 0, x + 0.2, 1)) for x in (0, 0.2, 0.4, 0.6)]
    with pytest.raises(InputError, match="shorten them, or give fewer regions"):
        z_image_latents(bases["z-image"], *regions)


def test_regions_and_detail_from_the_command_line(tmp_path: Path) -> None:
    tiny_sd3().save_pretrained(tmp_path / "sd3")
    words = [
        "generate",
        "a dog and a cat",
        "--base",
        str(tmp_path / "sd3"),
        "--sampler",
        "Euler",
        "--steps",
        "2",
        "--seed",
        "1",
    ]
    words += ["--device", "cpu", "--out", str(tmp_path / "out"), "--detail", "0.5"]
    words += ["--region", "a cat", "0,0,0.5,1", "--region", "a dog", "0.5,0,1,1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    (picture,) = (tmp_path / "out").glob("*.png")
    assert [region.prompt for region in GenerateConfig.from_parameters(read_parameters(picture)).regions] == [
        "a cat",
        "a dog",
    ]
