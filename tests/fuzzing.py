"""Structure-aware inputs for the doors: valid ones, broken at one or several places, from a seed.

`tests/test_fuzz.py` tries them for seconds, `tests/fuzz_lane.py` for hours.
"""

import io
import json
import random
from collections.abc import Callable
from typing import Any

NASTY = ["", " ", "\x00", "\n", "\x1b[31m", "\ud800", "\u202e", "e\u0301", "\ufb01", "\U00020000" * 70, "x" * 10_000]
NASTY += [
    "../..",
    "con",
    "<",
    "nan",
    "1e999",
    "-1",
    "9" * 5000,
    "[" * 2000,
    "{}",
    "null",
    "true",
    '"',
    "\\",
    '{"a": 1}',
]
NASTY += ["<rex>", "0x10", "\uff11"]
NUMBERS: list[Any] = [0, 1, -1, 2, 3, 255, 1025, 2**14, 2**17, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**40]
NUMBERS += [0.5, -0.0, 1e308]


def concept_parts() -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata and tensor table of a small valid concept file: name -> (type, shape)."""
    layers = {"unet.mid.to_q": (8, 6), "unet.mid.conv": (8, 9), "text_encoder.q_proj": (5, 7)}
    ours = {
        "format_version": "1",
        "name": "rex",
        "trigger": "<rex>",
        "class_word": "dog",
        "band": "1",
        "rank": "2",
        "mode": "additive",
        "alpha": "1.0",
        "base": "0123456789abcdef",
        "base_name": "tiny",
        "directions": "5",
        "fingerprints": json.dumps(dict.fromkeys(layers, "0" * 16 + ":1.5")),
        "kernels": json.dumps({"unet.mid.conv": [3, 3]}),
        "training": json.dumps({"steps": 10, "neighbours": {}}),
        "versions": "spectral-fusion 0",
    }
    tensors: dict[str, Any] = {"embeddings": ("F32", [2, 4])}
    for name, (rows, columns) in layers.items():
        for part, shape in {"U": [rows, 2], "S": [2], "V": [columns, 2], "A": [rows, 2], "B": [columns, 2]}.items():
            tensors[f"{name}.{part}"] = ("F32", shape)
    return {"spectral_fusion." + key: value for key, value in ours.items()}, tensors


def concept_file(rng: random.Random) -> bytes:
    """A concept file with up to four things wrong in it."""
    metadata, tensors = concept_parts()
    header: dict[str, Any] = {}
    for _ in range(rng.randint(0, 4)):
        rng.choice((_break_metadata, _break_json, _break_tensors))(rng, metadata, tensors)
    offset = 0
    for key, (kind, shape) in tensors.items():
        count = 1
        for side in shape:
            count *= side
        size = (count if 0 <= count < 10**5 else 1) * {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}.get(kind, 1)
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    if rng.random() < 0.1 and header:
        broken = rng.choice(list(header))
        header[broken] = rng.choice([None, {}, {"dtype": "F32"}, {**header[broken], "data_offsets": [0, 2**63]}])
    text = json.dumps({"__metadata__": metadata, **header}).encode(errors="surrogatepass")
    text += b" " * (-len(text) % 8)
    values = (
        bytes(offset) if rng.random() < 0.9 else bytes(rng.choice((0, 127, 128, 255)) for _ in range(min(offset, 4096)))
    )
    length = len(text) if rng.random() < 0.97 else rng.choice((0, 7, len(text) - 1, 2**31, 2**63, 2**64 - 1))
    data = length.to_bytes(8, "little") + text + values
    return _damaged(rng, data) if rng.random() < 0.1 else data


def _break_metadata(rng: random.Random, metadata: dict[str, str], tensors: dict[str, Any]) -> None:
    key = rng.choice(list(metadata))
    if rng.random() < 0.1:
        del metadata[key]
    else:
        metadata[key] = rng.choice([*NASTY, *map(str, NUMBERS)])


def _break_json(rng: random.Random, metadata: dict[str, str], tensors: dict[str, Any]) -> None:
    key = "spectral_fusion." + rng.choice(("fingerprints", "kernels", "training"))
    depth = rng.choice((1, 40, 5000))
    inner = json.dumps(rng.choice([*NASTY, *NUMBERS, None, True, [], {}]))
    name = rng.choice(["unet.mid.conv", "unet.mid.to_q", "steps", *NASTY[:8]])
    metadata[key] = rng.choice(
        [
            "[" * depth + inner + "]" * depth,
            '{"a":' * depth + inner + "}" * depth,
            json.dumps({name: rng.choice([*NUMBERS, [1, 1], [1, 1e9], [3], "0" * 16 + ":+-."])}),
            inner,
        ]
    )


def _break_tensors(rng: random.Random, metadata: dict[str, str], tensors: dict[str, Any]) -> None:
    if not tensors:
        return
    key = rng.choice(list(tensors))
    kind, shape = tensors[key]
    change = rng.randrange(5)
    if change == 0:
        del tensors[key]
    elif change == 1:
        tensors[rng.choice([*NASTY[1:12], key + "x"])] = tensors.pop(key)
    elif change == 2:
        tensors[key] = (rng.choice(("F16", "BF16", "I64", "BOOL", "F8_E4M3", "F64", "Q")), shape)
    elif change == 3:
        sides = [rng.choice((0, 1, 2, 5, 8, 9, 2**31, 2**62, 2**63 - 1, 2**63)) for _ in range(rng.randint(0, 4))]
        tensors[key] = (kind, sides)
    else:
        tensors[key] = (kind, [max(0, side + rng.choice((-1, 1))) for side in shape])


def picture_file(rng: random.Random) -> bytes:
    """A picture of any format, its bytes or chunks damaged, its settings of any kind."""
    from PIL import Image, PngImagePlugin

    kind = rng.choice(("PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF", "GIF", "EPS", "DDS", "PPM", "PNG", "PNG"))
    image = Image.frombytes("RGB", (12, 10), rng.randbytes(360))
    options: dict[str, Any] = {}
    if kind == "PNG" and rng.random() < 0.5:
        info = PngImagePlugin.PngInfo()
        key = rng.choice(("parameters", "prompt", "invokeai_metadata", "Dream"))
        info.add_text(key, settings_text(rng)[:5000].encode("utf-8", "ignore").decode())
        options = {"pnginfo": info}
    if kind in ("TIFF", "WEBP", "PNG", "GIF", "AVIF") and rng.random() < 0.2:
        options |= {"save_all": True, "append_images": [image.rotate(90)]}
    file = io.BytesIO()
    image.convert(rng.choice(("L", "RGB"))).save(file, kind, **options)
    return _damaged(rng, file.getvalue()) if rng.random() < 0.9 else file.getvalue()


def _damaged(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        if not changed:
            break
        place = rng.randrange(min(len(changed), rng.choice((16, 64, 100_000))))
        change = rng.randrange(4)
        if change == 0:
            del changed[place:]
        elif change == 1:
            changed[place] = rng.choice((0, 1, 127, 128, 255))
        elif change == 2:
            changed[place : place + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b""))
        else:
            changed[place:place] = rng.randbytes(rng.choice((1, 4, 60)))
    return bytes(changed)


WORDS = ["a", "<rex>", "dog", "(red:1.2)", "[", "]", ")", "(", "BREAK", "AND", "<lora:x:1>", "<lora:x:y>", ":", ","]
WORDS += ["\\(", "[a:b:0.5]", "[a|b]", "__x__", *NASTY]


def prompt_text(rng: random.Random) -> str:
    """Words, brackets, tags and nasty pieces in any order."""
    return rng.choice((" ", "", "\n")).join(rng.choice(WORDS) for _ in range(rng.randint(0, 30)))


def settings_text(rng: random.Random) -> str:
    """Settings of a picture in any tool's format, broken or whole."""
    keys = ["Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Concepts", *NASTY[:8]]
    values = [*NASTY, *map(str, NUMBERS), "Euler a", "512x512"]
    if rng.random() < 0.5:
        line = ", ".join(f"{rng.choice(keys)}: {rng.choice(values)}" for _ in range(rng.randint(0, 9)))
        end = rng.choice(("", "\nTemplate: x"))
        start = rng.choice(("", "Negative prompt: ugly\n", "Negative prompt: \nSteps: 5, x\n"))
        text = f"{prompt_text(rng)}\n{start}Steps: {rng.choice(NUMBERS)}, {line}{end}"
    else:
        text = json.dumps(_tool(rng))
    if rng.random() < 0.3:
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice(NASTY) + text[place + rng.randint(0, 5) :]
    return text


def _tool(rng: random.Random) -> Any:
    """What a tool writes, with any value in any place."""

    def value() -> Any:
        plain = [
            *NASTY,
            *NUMBERS,
            None,
            True,
            [],
            {},
            ["1", 0],
            [["a", 1, 2]],
            {"name": "x"},
            "euler",
            "karras",
            "(512, 512)",
        ]
        return rng.choice(plain)

    swarm = ["prompt", "negativeprompt", "seed", "steps", "cfgscale"]
    swarm += ["width", "height", "sampler", "scheduler", "loras", "loraweights"]
    fooocus = ["prompt", "negative_prompt", "base_model", "resolution", "sampler"]
    fooocus += ["scheduler", "seed", "steps", "styles", "loras", "metadata_scheme"]
    invoke = ["positive_prompt", "negative_prompt", "app_version", "seed", "steps"]
    invoke += ["cfg_scale", "scheduler", "model", "loras", "width", "height"]
    kind = rng.randrange(5)
    if kind == 0:
        return {"sui_image_params": {key: value() for key in swarm if rng.random() < 0.9}}
    if kind in (1, 2):
        return {key: value() for key in (fooocus, invoke)[kind - 1] if rng.random() < 0.9}
    if kind == 3:
        return {str(value()): value() for _ in range(rng.randint(0, 6))}
    return {str(number): _node(rng, value) for number in range(rng.randint(1, 8))}


def _node(rng: random.Random, value: Callable[[], Any]) -> Any:
    kinds = ("KSampler", "CLIPTextEncode", "EmptyLatentImage", "LoraLoader", "SaveImage", "Other")
    names = ["seed", "steps", "cfg", "sampler_name", "scheduler", "positive"]
    names += ["negative", "latent_image", "text", "width", "height", "samples"]
    inputs = {name: rng.choice((value(), [str(rng.randrange(8)), 0])) for name in names if rng.random() < 0.7}
    return {"class_type": rng.choice((*kinds, value())), "inputs": rng.choice((inputs, inputs, inputs, value()))}


def toml_text(rng: random.Random) -> str:
    """A settings file, its values of any type."""
    values = [*(json.dumps(text) for text in NASTY), *map(str, NUMBERS), "true", "[1, 2]", "{a = 1}", "1979-05-27", "x"]
    names = ["steps", "class", "cfg-scale", "rank", *NASTY[:6]]
    return "\n".join(f"{rng.choice(names)} = {rng.choice(values)}" for _ in range(rng.randint(0, 6)))


def text_file(rng: random.Random) -> bytes:
    """A caption, a table of captions or a settings file, in any encoding."""
    text = rng.choice((prompt_text, settings_text, toml_text))(rng)
    encoding = rng.choice(
        ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "gbk")
    )
    return (
        _damaged(rng, text.encode(encoding, errors="replace"))
        if rng.random() < 0.4
        else text.encode(encoding, errors="replace")
    )
