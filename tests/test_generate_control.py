"""Control pictures: a ControlNet beside the UNet, as stock diffusers runs it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image
from torch import Tensor

from concepts import make_concept
from spectral_fusion.base.control import Control, ControlNet
from spectral_fusion.base.load import base_of
from spectral_fusion.base.load_control import open_controlnet
from spectral_fusion.base.regions import Region
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.base.sdxl import StableDiffusionXL
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, Picture, generate
from spectral_fusion.generation.config import control_numbers
from tiny import tiny_controlnet
from tiny_flow import tiny_sd3
from tiny_sdxl import tiny_sdxl

PROMPT, NEGATIVE, STEPS, GUIDANCE = "a photo of a red dog", "ugly", 4, 3.0
CONFIG = GenerateConfig(PROMPT, num_inference_steps=STEPS, height=32, width=32, guidance_scale=GUIDANCE)


@pytest.fixture(scope="module")
def net(shared_base: StableDiffusion) -> ControlNet:
    return ControlNet("edges", tiny_controlnet(shared_base.unet))


@pytest.fixture(scope="module")
def edges() -> Image.Image:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[8:40, 16:56] = (255, 200, 40)
    return Image.fromarray(pixels)


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def drawn(base: StableDiffusion, **changes: object) -> np.ndarray:
    return pixels(generate(base, replace(CONFIG, **changes))[0])


def noise_of(base: StableDiffusion) -> Tensor:
    return torch.randn(1, *base.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))


def ours(base: StableDiffusion, control: Control) -> Tensor:
    told = base.condition([NEGATIVE, PROMPT])
    small = replace(control, image=control.image.resize((32, 32), Image.Resampling.LANCZOS))
    steps = base.denoise(
        told[1:2],
        noise_of(base),
        sampler="DDIM",
        steps=STEPS,
        uncondition=told[0:1],
        guidance_scale=GUIDANCE,
        control=small,
    )
    return list(steps)[-1].latents


@pytest.mark.parametrize(("scale", "start", "end"), [(1.0, 0.0, 1.0), (0.5, 0.25, 0.75)])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_it_draws_what_the_stock_pipeline_draws(
    shared_base: StableDiffusion, edges: Image.Image, family: str, scale: float, start: float, end: float
) -> None:
    base = shared_base if family == "sd" else StableDiffusionXL(tiny_sdxl())
    stock = StableDiffusionControlNetPipeline if family == "sd" else StableDiffusionXLControlNetPipeline
    net = ControlNet("edges", tiny_controlnet(base.unet))
    parts = {**base.pipeline.components, "controlnet": net.model}
    parts["scheduler"] = DDIMScheduler.from_config(base.scheduler("DDIM", (16, 16), STEPS).config)
    pipeline = stock(**parts, **({"requires_safety_checker": False} if family == "sd" else {"add_watermarker": False}))
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPT,
        image=edges,
        negative_prompt=NEGATIVE,
        height=32,
        width=32,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        controlnet_conditioning_scale=scale,
        control_guidance_start=start,
        control_guidance_end=end,
        latents=noise_of(base),
        output_type="latent",
    ).images
    found = ours(base, Control(net, edges, scale, start, end))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (found - ours(base, Control(net, edges, 0.0))).abs().max() > 1e-2, "the control picture does something"


def test_scale_0_is_the_picture_without(shared_base: StableDiffusion, net: ControlNet, edges: Image.Image) -> None:
    plain = drawn(shared_base)
    assert np.array_equal(drawn(shared_base, control=Control(net, edges, 0.0)), plain)
    assert np.abs(drawn(shared_base, control=Control(net, edges)) - plain).mean() > 1


def test_concepts_regions_and_an_init_image_go_with_it(
    base: StableDiffusion, net: ControlNet, edges: Image.Image
) -> None:
    """Placed everywhere equals fused, with a control picture as without; what is not repainted stays."""
    rex, control = make_concept(base, "rex"), Control(net, edges)
    config = replace(CONFIG, prompt="a <rex> dog", control=control)
    placed = pixels(generate(base, config, concepts={rex: 1.0})[0])
    fusion = fuse(base, {rex: 1.0})
    assert np.abs(pixels(generate(base, config)[0]) - placed).max() <= 1
    fusion.undo()
    regions = (Region("a <rex> dog", (0.0, 0.0, 0.5, 1.0), concepts=(("rex", 1.0),)),)
    begun = replace(config, regions=regions, init_image=edges, strength=0.75, detail=0.5, upscale=1.5)
    with_it = pixels(generate(base, begun, concepts={rex: 1.0})[0])
    without = pixels(generate(base, replace(begun, control=None), concepts={rex: 1.0})[0])
    assert with_it.shape == (48, 48, 3)
    assert np.abs(with_it - without).mean() > 0.5


def test_pictures_say_how_they_were_controlled(
    shared_base: StableDiffusion, net: ControlNet, edges: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    settings = generate(shared_base, replace(CONFIG, control=Control(net, edges, 0.5, 0.1, 0.8)))[0].parameters.settings
    assert settings["ControlNet"] == "edges"
    assert len(settings["Control image"]) == 10
    assert control_numbers(settings) == (0.5, 0.1, 0.8)
    assert "resized to 32x32" in caplog.text
    with pytest.raises(InputError, match="control settings"):
        control_numbers({"Control steps": "all"})


def test_a_folder_is_loaded_for_its_own_kind_of_base(
    shared_base: StableDiffusion, net: ControlNet, edges: Image.Image, tmp_path: Path
) -> None:
    net.model.save_pretrained(tmp_path / "edges")
    opened = open_controlnet(tmp_path / "edges", shared_base)
    assert opened.name == "edges"
    controls = [Control(one, edges) for one in (opened, net)]
    assert np.array_equal(*(drawn(shared_base, control=control) for control in controls))
    with pytest.raises(InputError, match=r"another family: its cross_attention_dim is 64, the base's 192"):
        open_controlnet(tmp_path / "edges", StableDiffusionXL(tiny_sdxl()))
    with pytest.raises(InputError, match="family sd3 take no ControlNet"):
        open_controlnet(tmp_path / "edges", base_of(tiny_sd3()))
    weights = tmp_path / "edges" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(InputError, match="is a file"):
        open_controlnet(weights, shared_base)
    weights.write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be loaded"):
        open_controlnet(tmp_path / "edges", shared_base)
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match="pickled"):
        open_controlnet(tmp_path / "edges", shared_base)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        open_controlnet(tmp_path, shared_base)


@pytest.mark.parametrize("numbers", [(float("nan"), 0.0, 1.0), (50.0, 0.0, 1.0), (1.0, 0.5, 0.5), (1.0, -0.1, 1.0)])
def test_numbers_that_cannot_be_used(net: ControlNet, edges: Image.Image, numbers: tuple[float, ...]) -> None:
    with pytest.raises(InputError):
        Control(net, edges, *numbers)
