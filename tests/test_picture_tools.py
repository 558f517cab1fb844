"""Settings of pictures that other tools made, each in its documented format: restored, or what is left out is named."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from spectral_fusion.base.samplers import SAMPLERS
from spectral_fusion.errors import InputError
from spectral_fusion.generation import GenerateConfig
from spectral_fusion.picture import Parameters, read_parameters, save_numbered, save_picture
from spectral_fusion.picture.samplers import OTHERS, OURS, find

A1111 = (
    "a (red:1.2) dog, <lora:detail:0.5>\nNegative prompt: ugly\nSteps: 30, Sampler: DPM++ 2M, Schedule type: Karras, "
    "CFG scale: 6.5, Seed: 18446744073709551615, Size: 512x768, Model hash: 45dee52b, Model: v1-5, Clip skip: 2, "
    'Hires upscale: 2, Lora hashes: "detail: 1234", Version: v1.10.1'
)
FORGE = (
    "a dog\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Distilled CFG Scale: 3.5, Seed: 5, "
    "Size: 512x512, Model: x, Version: f2.0.1v1.10.1, Module 1: ae"
)
SWARM = {
    "sui_image_params": {
        "prompt": "a dog",
        "negativeprompt": "ugly",
        "model": "v1-5",
        "seed": 2**64 - 1,
        "steps": 20,
        "cfgscale": 7.0,
        "aspectratio": "1:1",
        "width": 512,
        "height": 640,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "loras": ["detail"],
        "loraweights": ["0.5"],
        "swarm_version": "0.9.5.0",
    },
    "sui_extra_data": {"date": "2025-01-01"},
}
FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "juggernautXL_v8",
    "base_model_hash": "aeb7e9e689",
    "clip_skip": 2,
    "full_negative_prompt": ["ugly"],
    "full_prompt": ["a dog", "detailed"],
    "guidance_scale": 4,
    "loras": [["sd_xl_offset", 0.1, "4852686128"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "ugly",
    "performance": "Speed",
    "prompt": "a dog",
    "refiner_model": "None",
    "refiner_switch": 0.5,
    "resolution": "(1152, 896)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "4123671237213",
    "sharpness": 2,
    "steps": 30,
    "styles": "['Fooocus V2']",
    "vae": "Default (model)",
    "version": "Fooocus v2.5.5",
}
INVOKE = {
    "generation_mode": "txt2img",
    "positive_prompt": "a dog",
    "negative_prompt": "ugly",
    "width": 512,
    "height": 640,
    "seed": 3866823425,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "cfg_rescale_multiplier": 0,
    "steps": 30,
    "scheduler": "euler_a",
    "clip_skip": 0,
    "model": {"key": "x", "name": "v1-5", "base": "sd-1"},
    "loras": [{"model": {"name": "detail"}, "weight": 0.5}],
    "app_version": "5.4.0",
}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


COMFY = {
    "3": node(
        "KSampler", seed=2**64 - 1, steps=20, cfg=8.0, sampler_name="dpmpp_2m", scheduler="karras", denoise=1.0,
        model=["10", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0],
    ),
    "4": node("CheckpointLoaderSimple", ckpt_name="v1-5.safetensors"),
    "5": node("EmptyLatentImage", width=512, height=640, batch_size=1),
    "6": node("CLIPTextEncode", text="a dog", clip=["10", 1]),
    "7": node("CLIPTextEncode", text="ugly", clip=["10", 1]),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", images=["8", 0], filename_prefix="ComfyUI"),
    "10": node("LoraLoader", lora_name="detail.safetensors", strength_model=0.5, model=["4", 0], clip=["4", 1]),
}  # fmt: skip


def png(path: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (16, 16)).save(path, pnginfo=info)
    return path


def test_our_names_of_samplers_are_those_of_the_program() -> None:
    assert set(OURS) == set(SAMPLERS)
    assert set(OTHERS.values()) <= set(SAMPLERS)


@pytest.mark.parametrize(
    ("name", "schedule", "ours", "missing"),
    [
        ("DPM++ 2M", "Karras", "DPM++ 2M Karras", ""),
        ("DPM++ 2M", "Automatic", "DPM++ 2M Karras", ""),
        ("DPM++ 2M", "Uniform", "DPM++ 2M", ""),
        ("DPM++ 2M", "", "DPM++ 2M", ""),
        ("DPM++ 2M SDE", "Exponential", "DPM++ 2M SDE", "exponential"),
        ("Euler a", "Automatic", "Euler a", ""),
        ("Euler", "Karras", "Euler", "karras"),
        ("dpmpp_2m_sde_k", "", "DPM++ 2M SDE Karras", ""),
        ("k_euler_a", "", "Euler a", ""),
        ("euler_ancestral", "normal", "Euler a", ""),
    ],
)
def test_schedules_come_along_or_are_named(name: str, schedule: str, ours: str, missing: str) -> None:
    assert find(name, schedule) == (ours, missing)


def test_automatic1111() -> None:
    parameters = Parameters.parse(A1111)
    config = GenerateConfig.from_parameters(parameters)
    assert (config.sampler, config.seed) == ("DPM++ 2M Karras", 2**64 - 1)
    assert (config.width, config.height, config.guidance_scale) == (512, 768, 6.5)
    assert parameters.left_out == ("Clip skip: '2'",)


def test_forge() -> None:
    parameters = Parameters.parse(FORGE)
    assert parameters.settings["Sampler"] == "Euler a"
    assert parameters.left_out == ("Distilled CFG Scale: '3.5'", "Module 1: 'ae'")


def test_unknown_samplers_are_named() -> None:
    parameters = Parameters.parse("a dog\nSteps: 30, Sampler: DPM adaptive, CFG scale: 7, Seed: 1")
    assert parameters.left_out == ("sampler 'DPM adaptive'",)


@pytest.mark.parametrize("tool", ["swarm", "fooocus", "invoke", "comfy"])
def test_tools_that_write_json(tmp_path: Path, tool: str) -> None:
    keys = {"swarm": "parameters", "fooocus": "parameters", "invoke": "invokeai_metadata", "comfy": "prompt"}
    said = {"swarm": SWARM, "fooocus": FOOOCUS, "invoke": INVOKE, "comfy": COMFY}[tool]
    parameters = read_parameters(png(tmp_path / "a.png", **{keys[tool]: json.dumps(said)}))
    config = GenerateConfig.from_parameters(parameters)
    assert (config.prompt, config.negative_prompt) == ("a dog", "ugly")
    expected = {
        "swarm": (20, 7.0, 2**64 - 1, 512, 640, "DPM++ 2M Karras"),
        "fooocus": (30, 4.0, 4123671237213, 1152, 896, "DPM++ 2M SDE Karras"),
        "invoke": (30, 7.5, 3866823425, 512, 640, "Euler a"),
        "comfy": (20, 8.0, 2**64 - 1, 512, 640, "DPM++ 2M Karras"),
    }[tool]
    found = (config.num_inference_steps, config.guidance_scale, config.seed, config.width, config.height)
    assert (*found, config.sampler) == expected
    assert any("detail" in phrase or "sd_xl_offset" in phrase for phrase in parameters.left_out)


def test_what_fooocus_does_beside_the_model_is_named() -> None:
    left_out = " ".join(Parameters.parse(json.dumps(FOOOCUS)).left_out)
    for name in ("styles", "sharpness", "adm_guidance", "clip_skip"):
        assert name in left_out


def test_swarm_in_a_jpeg_and_comfy_in_a_webp(tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (16, 16)), Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + json.dumps(SWARM).encode("utf-16-be")
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_parameters(tmp_path / "a.jpg").prompt == "a dog"
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "workflow:{}", "prompt:" + json.dumps(COMFY)
    image.save(tmp_path / "a.webp", exif=exif)
    assert read_parameters(tmp_path / "a.webp").settings["Steps"] == "20"


def test_a_second_pass_of_comfy_is_not_taken_for_the_picture() -> None:
    again = node("KSampler", seed=1, steps=5, cfg=1, sampler_name="euler", scheduler="normal", denoise=0.5,
                 positive=["6", 0], negative=["7", 0], latent_image=["12", 0])  # fmt: skip
    graph = COMFY | {"11": again, "12": node("VAEEncode", pixels=["8", 0])}
    assert Parameters.parse(json.dumps(graph)).settings["Steps"] == "20"


@pytest.mark.parametrize(
    "said",
    [
        {"nodes": [], "links": []},
        {"a": 1},
        {"1": node("KSampler", sampler_name="euler", positive=["1", 0], latent_image=["1", 0])},
        {"1": node("SaveImage")},
        {"sui_image_params": []},
        {"image": {"prompt": 3}},
    ],
)
def test_json_that_is_of_no_use_is_refused_or_read_but_never_a_prompt(said: Any) -> None:
    text = json.dumps(said)
    try:
        parameters = Parameters.parse(text if text.startswith("{") else "{" + text)
    except InputError as error:
        assert "by hand" in str(error) or "JSON" in str(error)  # noqa: PT017
    else:
        assert "{" not in parameters.prompt


@pytest.mark.parametrize(
    "prompt",
    [
        "a dog\nNegative prompt: in the manner of a film negative",
        "Steps: 5, a walk",
        "a dog\nSteps: 20, Sampler: Euler",
        "Negative prompt: ",
        "\n\na dog\n",
        "",
        '{"a": "dog"}',
        "a dog\r\nwith two lines",
    ],
)
@pytest.mark.parametrize("negative", ["", "ugly", "Steps: 3, a walk", "a\nNegative prompt: b"])
def test_prompts_that_look_like_the_format_survive(prompt: str, negative: str) -> None:
    parameters = Parameters(prompt, negative, {"Steps": "20", "Sampler": "Euler", "Version": "spectral-fusion 1"})
    assert Parameters.parse(str(parameters)) == parameters


def test_lines_of_extensions_below_the_settings_survive() -> None:
    text = f"{A1111}\nTemplate: a {{red|blue}} dog\nNegative Template: ugly,\nworse\n"
    parameters = Parameters.parse(text)
    assert parameters.negative_prompt == "ugly"
    assert parameters.settings["Seed"] == str(2**64 - 1)
    assert parameters.settings["Negative Template"] == "ugly,\nworse"


def test_values_of_civitai_keep_their_commas() -> None:
    text = 'p\nSteps: 1, Civitai resources: [{"type":"lora","weight":1}, {"a": 2}], Seed: 7'
    assert Parameters.parse(text).settings["Seed"] == "7"


@pytest.mark.parametrize(
    "text",
    [
        "p\nSteps: 1," + "a " * 30_000,
        "p\nSteps: 1, " + "a: " * 30_000,
        "p\nSteps: 1, " + '"' * 60_000,
        'p\nSteps: 1, a: "' + "\\" * 60_000,
        "p\nSteps: 1, " + " " * 60_000 + "a: 1",
        "p\nSteps: 1, a:" + "[" * 60_000,
        "Negative prompt: " * 10_000,
        "Steps: 1\n" * 25_000,
        "{" * 60_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(InputError):
        Parameters.parse(text)
    assert time.process_time() - start < 1


def test_texts_have_a_bound() -> None:
    for text in ("a " * 3_000_000, "{" + " " * 5_000_000 + "}"):
        with pytest.raises(InputError, match="characters long"):
            Parameters.parse(text)


def test_numbers_go_on_after_99999_and_nothing_is_replaced(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16))
    (tmp_path / "99999-7.png").write_bytes(b"mine")
    first = save_numbered(image, tmp_path, "7.png", "p")
    second = save_numbered(image, tmp_path, "7.png", "p")
    assert (first.name, second.name) == ("100000-7.png", "100001-7.png")
    assert (tmp_path / "99999-7.png").read_bytes() == b"mine"
    (tmp_path / ".100002-8.png.abcdefgh.part").write_bytes(b"half")
    save_numbered(image, tmp_path, "9.png", "p")
    assert not list(tmp_path.glob(".*"))


def test_processes_that_save_into_one_folder_lose_nothing(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom PIL import Image\n"
        "from spectral_fusion.picture import save_numbered\n"
        "for _ in range(15):\n    save_numbered(Image.new('RGB', (16, 16)), Path(sys.argv[1]), '7.png', 'p')\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert len(list(tmp_path.glob("*.png"))) == 45


def test_an_existing_picture_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    path = save_picture(Image.new("RGB", (16, 16)), tmp_path / "a.png", "p")
    with pytest.raises(FileExistsError):
        save_picture(Image.new("RGB", (16, 16)), path, "p", exclusive=True)


@pytest.mark.parametrize("weight", ["nan", "inf", "1e999"])
def test_a_weight_that_is_no_number_is_refused(weight: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        _ = Parameters("a dog", settings={"Concepts": f"rex: {weight}"}).weights
