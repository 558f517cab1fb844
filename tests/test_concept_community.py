"""LoRA files from elsewhere: every naming gives the same deltas, and what cannot be read is refused by name."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from concepts import delta, make_concept
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import export_lora
from spectral_fusion.concept.community import LoraFile, is_lora, read_lora
from spectral_fusion.concept.lora_names import LayerNames
from spectral_fusion.errors import InputError
from tiny import tiny_base

QUERY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"
CONV = "unet.down_blocks.0.resnets.0.conv1"
TEXT = "text_encoder.encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    return {name: tuple(layer.weight.shape) for name, layer in tiny_base().layers().items()}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path


def flat(layer: str) -> str:
    return "lora_" + layer.replace("text_encoder.", "te.text_model.", 1).replace(".", "_")


@pytest.mark.parametrize("to", ["diffusers", "kohya"])
@pytest.mark.parametrize("targets", [("to_k", "to_out.0", "q_proj", "v_proj"), ("conv1", "proj_in", "net.2", "fc1")])
def test_our_own_exports_come_back(
    shared_base: StableDiffusion, shapes: dict, tmp_path: Path, to: str, targets: tuple[str, ...]
) -> None:
    concept = make_concept(shared_base, alpha=0.7, targets=targets)
    lora = read_lora(export_lora({concept: 0.5}, tmp_path / "rex and tom v1.2.safetensors", to), shapes)
    assert lora.layers.keys() == concept.layers.keys()
    for layer in concept.layers:
        torch.testing.assert_close(delta(lora.factors(layer)), 0.5 * delta(concept.factors(layer)))
    assert (lora.name, lora.trigger, lora.unmatched) == ("rex_and_tom_v1_2", "<rex>", ())


def trained(model: torch.nn.Module, **settings: object) -> torch.nn.Module:
    """A PEFT model of rank 4 whose tensors are all random."""
    model = get_peft_model(model, LoraConfig(target_modules=["to_q", "to_k", "q_proj", "conv1"], r=4, **settings))
    for number, parameter in enumerate(p for name, p in model.named_parameters() if "lora_" in name):
        parameter.data = random(*parameter.shape, seed=number)
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": 2},
        {"lora_alpha": 2, "use_rslora": True},
        {"lora_alpha": 3, "alpha_pattern": {"to_q": 7}, "rank_pattern": {"to_k": 2}},
    ],
)
@pytest.mark.parametrize("by", ["diffusers", "peft"])
def test_what_diffusers_and_peft_write(shapes: dict, tmp_path: Path, settings: dict, by: str) -> None:
    """Alpha, patterns and scaling are in settings, not in tensors: compared with what PEFT itself merges."""
    base = tiny_base()
    before = {name: layer.weight.clone() for name, layer in base.layers().items()}
    parts = {"unet": trained(base.unet, **settings)}
    if by == "diffusers":
        parts["text_encoder"] = trained(base.text_encoder, **settings)
        configs = {part: model.peft_config["default"].to_dict() for part, model in parts.items()}
        for config in configs.values():
            config.pop("peft_type"), config.pop("task_type")
        states = {part: get_peft_model_state_dict(model) for part, model in parts.items()}
        states = {p: {k.removeprefix("base_model.model."): v for k, v in s.items()} for p, s in states.items()}
        StableDiffusionPipeline.save_lora_weights(
            tmp_path,
            unet_lora_layers=states["unet"],
            text_encoder_lora_layers=states["text_encoder"],
            unet_lora_adapter_metadata=json.loads(json.dumps(configs["unet"], default=list)),
            text_encoder_lora_adapter_metadata=json.loads(json.dumps(configs["text_encoder"], default=list)),
        )
    else:
        parts["unet"].save_pretrained(tmp_path)
    lora = read_lora(tmp_path, shapes)
    merged = {part: model.merge_and_unload() for part, model in parts.items()}
    assert {name.partition(".")[0] for name in lora.layers} == set(merged)
    for layer, factors in lora.layers.items():
        part, _, path = layer.partition(".")
        difference = merged[part].get_submodule(path).weight - before[layer]
        torch.testing.assert_close(delta(factors), difference.flatten(1), rtol=1e-4, atol=1e-4)
    assert not lora.unmatched


def halves(shape: tuple[int, ...], rank: int = 3) -> tuple[Tensor, Tensor]:
    """down and up of a LoRA on a weight of this shape."""
    return random(rank, *shape[1:]), random(shape[0], rank, *(1 for _ in shape[2:]), seed=1)


@pytest.mark.parametrize(
    ("layer", "down_key", "up_key"),
    [
        (QUERY, "{}.lora_A.weight", "{}.lora_B.weight"),
        (QUERY, "{}.lora_A.default.weight", "{}.lora_B.default.weight"),
        (QUERY, "{}.lora.down.weight", "{}.lora.up.weight"),
        (CONV, "{}.lora.down.weight", "{}.lora.up.weight"),
        (QUERY, "{}_lora.down.weight", "{}_lora.up.weight"),
        (TEXT, "{}.lora_linear_layer.down.weight", "{}.lora_linear_layer.up.weight"),
    ],
)
def test_the_namings_of_diffusers(shapes: dict, tmp_path: Path, layer: str, down_key: str, up_key: str) -> None:
    down, up = halves(shapes[layer])
    spoken = layer.replace(".to_q", ".processor.to_q") if "_lora" in down_key[:8] else layer
    spoken = spoken.replace("text_encoder.", "text_encoder.text_model.")
    lora = read_lora(
        saved({down_key.format(spoken): down, up_key.format(spoken): up}, tmp_path / "l.safetensors"), shapes
    )
    torch.testing.assert_close(delta(lora.factors(layer)), up.flatten(1) @ down.flatten(1))


def test_old_processors_without_a_number_at_the_output(shapes: dict, tmp_path: Path) -> None:
    down, up = halves(shapes[OUT])
    key = OUT.replace("unet.", "").replace("to_out.0", "processor.to_out_lora")
    lora = read_lora(saved({f"{key}.down.weight": down, f"{key}.up.weight": up}, tmp_path / "l.safetensors"), shapes)
    assert list(lora.layers) == [OUT]


def test_ranks_and_alphas_of_each_layer(shapes: dict, tmp_path: Path) -> None:
    tensors, expected = {}, {}
    for rank, layer in enumerate((QUERY, CONV, TEXT), start=1):
        down, up = halves(shapes[layer], rank)
        key = flat(layer)
        tensors |= {f"{key}.lora_down.weight": down.half(), f"{key}.lora_up.weight": up.half()}
        tensors[f"{key}.alpha"] = torch.tensor(2.0)
        expected[layer] = 2 / rank * up.half().float().flatten(1) @ down.half().float().flatten(1)
    lora = read_lora(saved(tensors, tmp_path / "l.safetensors"), shapes)
    assert lora.rank == 3
    for layer, wanted in expected.items():
        torch.testing.assert_close(delta(lora.factors(layer)), wanted, rtol=1e-4, atol=1e-4)


def test_a_convolution_with_a_middle_tensor(shapes: dict, tmp_path: Path) -> None:
    out, inner, height, width = shapes[CONV]
    down, mid, up = random(3, inner, 1, 1), random(3, 3, height, width, seed=1), random(out, 3, 1, 1, seed=2)
    key = flat(CONV)
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_mid.weight": mid, f"{key}.lora_up.weight": up}
    lora = read_lora(saved(tensors | {f"{key}.alpha": torch.tensor(1.5)}, tmp_path / "l.safetensors"), shapes)
    wanted = 0.5 * torch.einsum("op,pqhw,qi->oihw", up.flatten(1), mid, down.flatten(1)).flatten(1)
    torch.testing.assert_close(delta(lora.factors(CONV)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [QUERY, CONV])
def test_loha_and_lokr_are_converted_exactly(shapes: dict, tmp_path: Path, layer: str) -> None:
    out, inside = shapes[layer][0], math.prod(shapes[layer][1:])
    key = flat(layer)
    a, b, c, d = random(out, 2), random(2, inside, seed=1), random(out, 2, seed=2), random(2, inside, seed=3)
    loha = {f"{key}.hada_w{i}": tensor for i, tensor in zip(("1_a", "1_b", "2_a", "2_b"), (a, b, c, d), strict=True)}
    found = read_lora(saved(loha | {f"{key}.alpha": torch.tensor(1.0)}, tmp_path / "loha.safetensors"), shapes)
    torch.testing.assert_close(delta(found.factors(layer)), 0.5 * (a @ b) * (c @ d), rtol=1e-4, atol=1e-4)
    w1, w2_a, w2_b = random(4, 4), random(out // 4, 2, seed=1), random(2, inside // 4, seed=2)
    lokr = {f"{key}.lokr_w1": w1, f"{key}.lokr_w2_a": w2_a, f"{key}.lokr_w2_b": w2_b}
    found = read_lora(saved(lokr, tmp_path / "lokr.safetensors"), shapes)
    torch.testing.assert_close(delta(found.factors(layer)), torch.kron(w1, w2_a @ w2_b), rtol=1e-4, atol=1e-4)


def test_numbered_layers_and_tokens(shapes: dict, tmp_path: Path) -> None:
    """`lora_diffusion` counts layers: down, up, middle; in each block attention, feed-forward, cross-attention."""
    names = LayerNames(shapes)
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
    assert [names.find(f"unet:{i}") for i in (0, 4, 6)] == [QUERY, f"{block}.ff.net.0.proj", f"{block}.attn2.to_k"]
    count = sum(name.startswith("unet.") and name.endswith(("to_q", "0.proj")) for name in shapes) * 3
    last = names.find(f"unet:{count - 1}")
    assert str(last).startswith("unet.mid_block.")
    assert names.find(f"unet:{count}") is None
    assert names.find("text_encoder:2") == TEXT
    down, up = halves(shapes[QUERY])
    tensors = {"unet:0:down": down, "unet:0:up": up, "<s1>": random(64)}
    metadata = {"unet": '["GEGLU", "CrossAttention", "Attention"]'}
    lora = read_lora(saved(tensors, tmp_path / "l.safetensors", metadata), shapes)
    assert list(lora.layers) == [QUERY]
    assert lora.trigger == "<s1>"
    assert lora.embeddings["<s1>"].shape == (1, 64)
    path = saved(tensors, tmp_path / "m.safetensors", {"unet": '["ResnetBlock2D"]'})
    with pytest.raises(InputError, match="ResnetBlock2D"):
        read_lora(path, shapes)


def test_names_of_the_original_code(shapes: dict) -> None:
    names = LayerNames(shapes)
    for old, new in {
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q": QUERY,
        "lora_unet_input_blocks_1_0_in_layers_2": CONV,
        "diffusion_model.input_blocks.2.0.op": "unet.down_blocks.0.downsamplers.0.conv",
        "lora_unet_middle_block_1_proj_in": "unet.mid_block.attentions.0.proj_in",
        "lora_unet_output_blocks_1_1_conv": "unet.up_blocks.0.upsamplers.0.conv",
        "lora_unet_output_blocks_3_2_conv": "unet.up_blocks.1.upsamplers.0.conv",
        "lora_unet_time_embed_0": "unet.time_embedding.linear_1",
    }.items():
        assert names.find(old) == new
        assert names.find(new) == new


def test_keys_without_a_layer_are_named_and_the_rest_is_read(shapes: dict, tmp_path: Path) -> None:
    down, up = halves(shapes[QUERY])
    tensors = {f"{QUERY}.lora_A.weight": down, f"{QUERY}.lora_B.weight": up, "what.is.this": up}
    tensors |= {"unet.down_blocks.9.x.lora_A.weight": down, "unet.down_blocks.9.x.lora_B.weight": up}
    lora = read_lora(saved(tensors, tmp_path / "l.safetensors"), shapes)
    assert lora.unmatched == ("unet.down_blocks.9.x: down", "unet.down_blocks.9.x: up", "what.is.this")


def refused(tensors: Mapping[str, Tensor], path: Path, shapes: dict, match: str, **metadata: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_lora(saved(tensors, path, metadata), shapes)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("dora_scale", "DoRA"),
        ("oft_blocks", "OFT"),
        ("diff", "full difference"),
        ("hada_t1", "LoHa with Tucker"),
        ("lokr_w2", "LoKr with a full second matrix"),
    ],
)
def test_methods_that_are_no_low_rank_update_are_refused_by_name(
    shapes: dict, tmp_path: Path, what: str, match: str
) -> None:
    down, up = halves(shapes[QUERY])
    key = flat(QUERY)
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.{what}": up}
    refused(tensors, tmp_path / "l.safetensors", shapes, match)


def test_broken_files_are_refused_in_one_line(shapes: dict, tmp_path: Path) -> None:
    down, up = halves(shapes[QUERY])
    path, a, b = tmp_path / "l.safetensors", f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight"
    refused({a: down}, path, shapes, "down without up")
    refused({b: up}, path, shapes, "up without down")
    refused({a: down, b: up[:, :2]}, path, shapes, "halves of ranks 3 and 2")
    refused({a: down * float("nan"), b: up}, path, shapes, "NaN or infinity")
    refused({a: down[:, :-1], b: up}, path, shapes, r"32 x 31, this base has 32 x 32")
    refused({f"k{i}": up for i in range(5)}, path, shapes, "first keys: k0, k1, k2\\)")
    refused({"x.y.lora_A.weight": down, "x.y.lora_B.weight": up}, path, shapes, r"no key .*first keys: x\.y")
    refused({a: down, b: up}, path, shapes, "cannot be read", lora_adapter_metadata="{")
    refused({a: down, b: up}, path, shapes, "DoRA", lora_adapter_metadata='{"unet.use_dora": true}')
    refused({a: down, b: up, f"{QUERY}.alpha": down}, path, shapes, "alpha of shape")
    (tmp_path / "p.safetensors").write_bytes(b"\x80\x04\x95")
    with pytest.raises(InputError, match="pickle"):
        read_lora(tmp_path / "p.safetensors", shapes)
    with pytest.raises(InputError, match="no concept file"):
        read_lora(tmp_path / "none.safetensors", shapes)


def hada(*sides: tuple[int, int]) -> dict[str, Tensor]:
    return {f"hada_{name}": random(*side) for name, side in zip(("w1_a", "w1_b", "w2_a", "w2_b"), sides, strict=True)}


def lokr(**sides: tuple[int, ...]) -> dict[str, Tensor]:
    return {f"lokr_{name}": random(*side) for name, side in sides.items()}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"lora_down.weight": torch.tensor(1.0)}, "not a matrix"),
        ({"lora_down.weight": torch.ones(4)}, "not a matrix"),
        ({"lora_up.weight": torch.tensor(1.0)}, "not a matrix"),
        ({"lora_up.weight": torch.ones(64)}, "not a matrix"),
        ({"lora_down.weight": torch.ones(0, 64), "lora_up.weight": torch.ones(64, 0)}, "not a matrix"),
        ({"lora_down.weight": torch.ones(4, 64, dtype=torch.int64)}, "of int64, not a matrix of floats"),
        ({"lora_down.weight": torch.ones(4, 64, dtype=torch.complex64)}, "of complex64"),
        ({"lora_down.weight": torch.ones(20_000, 64), "lora_up.weight": torch.ones(64, 20_000)}, "rank 20000"),
        (hada((4,), (4,), (4,), (4,)), "not a matrix"),  # type: ignore[arg-type]
        (hada((64, 2), (3, 64), (64, 2), (2, 64)), "ranks 2 and 3"),
        (hada((64, 2), (2, 64), (65, 2), (2, 64)), "products of shapes"),
        (hada((64, 200), (200, 64), (64, 200), (200, 64)), "rank 40000"),
        (lokr(w1=(4,), w2_a=(8, 2), w2_b=(2, 8)), "not a matrix"),
        (lokr(w1_a=(4, 3), w1_b=(2, 4), w2_a=(8, 2), w2_b=(2, 8)), "ranks 3 and 2"),
        (lokr(w1=(4, 4), w2_a=(8, 2), w2_b=(3, 8)), "ranks 2 and 3"),
        (lokr(w1=(1000, 1000), w2_a=(2000, 2), w2_b=(2, 2000)), "2000000 x 2000000"),
    ],
)
def test_tensors_that_are_no_update_of_a_layer_are_refused_before_anything_is_multiplied(
    shapes: dict, tmp_path: Path, tensors: dict[str, Tensor], words: str
) -> None:
    whole = {} if any(name.startswith(("hada", "lokr")) for name in tensors) else {
        "lora_down.weight": torch.ones(4, 64), "lora_up.weight": torch.ones(64, 4)
    }  # fmt: skip
    named = {f"{flat(TEXT)}.{name}": tensor for name, tensor in (whole | tensors).items()}
    with pytest.raises(InputError, match=words):
        read_lora(saved(named | {f"{flat(TEXT)}.alpha": torch.tensor(1.0)}, tmp_path / "a.safetensors"), shapes)


@pytest.mark.parametrize(
    "rows", [torch.tensor(1.0), torch.ones(0, 64), torch.ones(2000, 64), torch.ones(2, 64, dtype=torch.int64)]
)
def test_the_vectors_of_a_token_are_as_those_of_a_concept(shapes: dict, tmp_path: Path, rows: Tensor) -> None:
    whole = {f"{flat(TEXT)}.lora_down.weight": torch.ones(4, 64), f"{flat(TEXT)}.lora_up.weight": torch.ones(64, 4)}
    with pytest.raises(InputError, match="vectors of <rex>"):
        read_lora(saved(whole | {"<rex>": rows}, tmp_path / "a.safetensors"), shapes)


@pytest.mark.parametrize("pattern", ["(a|aa)+$", "((\\w+)*)*x", "(.*)*", ".*.*.*", "x" * 300, "("])
def test_a_pattern_that_may_match_for_ever_is_refused(shapes: dict, tmp_path: Path, pattern: str) -> None:
    whole = {f"{flat(TEXT)}.lora_down.weight": torch.ones(4, 64), f"{flat(TEXT)}.lora_up.weight": torch.ones(64, 4)}
    settings = json.dumps({"text_encoder.lora_alpha": 1, "text_encoder.alpha_pattern": {pattern: 1}})
    file = saved(whole, tmp_path / "a.safetensors", {"lora_adapter_metadata": settings})
    with pytest.raises(InputError, match="lora_adapter_metadata cannot be read"):
        read_lora(file, shapes)


def test_a_lora_is_told_from_a_concept(shared_base: StableDiffusion, tmp_path: Path) -> None:
    concept = make_concept(shared_base)
    assert is_lora(export_lora({concept: 1.0}, tmp_path / "lora.safetensors", "kohya"))
    assert not is_lora(concept.save(tmp_path / "concept.safetensors"))
    assert not is_lora(tmp_path / "missing.safetensors")
    assert isinstance(LoraFile("x", {}), LoraFile)
