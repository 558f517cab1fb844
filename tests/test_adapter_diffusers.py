"""The tuner on a diffusers UNet, through diffusers' own verbs and next to stock LoRA."""

import pytest
import torch
from peft import LoraConfig

from adapting import assert_same_weights, train, weights
from spectral_fusion.adapter import SpectralConfig, SpectralLayer, SpectralLinear
from tiny import TEXT_WIDTH, tiny_base, tiny_unet

MODES = ["additive", "rotational"]
CONVOLUTIONS = ["conv1", "conv2", "proj_in"]


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return tiny_unet().eval()


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(1, 4, 16, 16, generator=generator),
        torch.tensor([7]),
        torch.randn(1, 5, TEXT_WIDTH, generator=generator),
    )


def add(unet, name, *, band=0, seed=0, **settings):
    unet.add_adapter(SpectralConfig(**({"r": 4, "band": band} | settings)), adapter_name=name)
    train(unet, name, seed=seed)


def add_lora(unet, name, targets=("to_q", "to_v")):
    torch.manual_seed(3)
    unet.add_adapter(LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False), adapter_name=name)


def predict(unet, batch, **kwargs):
    with torch.no_grad():
        return unet(*batch, **kwargs).sample


def layers(unet):
    return {name: module for name, module in unet.named_modules() if isinstance(module, SpectralLayer)}


def close(a, b, tolerance=2e-5):
    return torch.allclose(a, b, atol=tolerance)


def test_the_attention_projections_are_the_default(unet, batch):
    add(unet, "rex")
    names = {name.rsplit("attn", 1)[1][2:] for name in layers(unet)}
    assert names == {"to_q", "to_k", "to_v", "to_out.0"}
    attention = [name for name, _ in unet.named_modules() if name.endswith(("attn1", "attn2"))]
    assert len(layers(unet)) == 4 * len(attention)


@pytest.mark.parametrize("mode", MODES)
def test_add_disable_enable_delete(unet, batch, mode):
    expected, pristine = predict(unet, batch), weights(unet)
    unet.add_adapter(SpectralConfig(r=4, mode=mode), adapter_name="rex")
    assert torch.equal(predict(unet, batch), expected)
    train(unet, "rex")
    changed = predict(unet, batch)
    assert not close(changed, expected, 1e-3)
    unet.disable_adapters()
    assert torch.equal(predict(unet, batch), expected)
    unet.enable_adapters()
    assert torch.equal(predict(unet, batch), changed)
    unet.delete_adapters("rex")
    assert torch.equal(predict(unet, batch), expected)
    unet.unload_lora()
    assert not layers(unet)
    assert_same_weights(unet, pristine)
    unet.add_adapter(SpectralConfig(r=4, mode=mode), adapter_name="rex")
    assert torch.equal(predict(unet, batch), expected)


def test_weights_per_adapter(unet, batch):
    expected = predict(unet, batch)
    add(unet, "rex", alpha=0.5)
    add(unet, "tom", band=1, mode="rotational", seed=1)
    unet.set_adapters(["rex", "tom"], weights=[0.6, 0.0])
    mixed = predict(unet, batch)
    unet.set_adapters("rex", weights=0.6)
    assert close(predict(unet, batch), mixed)
    assert {layer.scaling["rex"] for layer in layers(unet).values()} == {0.3}
    unet.set_adapters(["rex", "tom"], weights=[0.0, 0.0])
    assert close(predict(unet, batch), expected)


def test_weights_per_block(unet):
    add(unet, "rex")
    unet.set_adapters("rex", weights={"down": 0.2, "mid": 0.3, "up": {"block_1": 0.7, "block_2": 0.9}})
    expected = {"down_blocks": 0.2, "mid_block": 0.3, "up_blocks.1": 0.7, "up_blocks.2": 0.9}
    for name, layer in layers(unet).items():
        (weight,) = (weight for block, weight in expected.items() if name.startswith(block))
        assert layer.scaling["rex"] == weight


def test_the_scale_of_one_call(unet, batch):
    add(unet, "rex")
    unet.set_adapters("rex", weights=0.4)
    expected = predict(unet, batch)
    unet.set_adapters("rex", weights=0.8)
    assert close(predict(unet, batch, cross_attention_kwargs={"scale": 0.5}), expected)
    assert {round(layer.scaling["rex"], 12) for layer in layers(unet).values()} == {0.8}


@pytest.mark.parametrize("mode", MODES)
def test_fusing_is_undone_bit_for_bit(unet, batch, mode):
    pristine = weights(unet)
    add(unet, "rex", mode=mode)
    unet.set_adapters("rex", weights=0.7)
    apart = predict(unet, batch)
    unet.fuse_lora()
    assert close(predict(unet, batch), apart)
    unet.set_adapters("rex", weights=3.0)
    unet.unfuse_lora()
    assert_same_weights(unet, pristine)


def test_fusing_at_a_scale_is_undone_too(unet, batch):
    pristine = weights(unet)
    add(unet, "rex")
    unet.set_adapters("rex", weights=0.5)
    expected = predict(unet, batch)
    unet.set_adapters("rex", weights=1.0)
    unet.fuse_lora(lora_scale=0.5)
    assert close(predict(unet, batch), expected)
    unet.unfuse_lora()
    assert_same_weights(unet, pristine)


def test_fusing_one_of_two(unet, batch):
    add(unet, "rex")
    add(unet, "tom", band=1, seed=1)
    unet.set_adapters(["rex", "tom"])
    both = predict(unet, batch)
    unet.fuse_lora(adapter_names=["rex"])
    assert close(predict(unet, batch), both)


def test_convolutions_of_a_unet(unet, batch):
    expected, pristine = predict(unet, batch), weights(unet)
    unet.add_adapter(SpectralConfig(r=4, target_modules=CONVOLUTIONS), adapter_name="rex")
    assert torch.equal(predict(unet, batch), expected)
    train(unet, "rex", size=0.05)
    apart = predict(unet, batch)
    unet.fuse_lora()
    assert close(predict(unet, batch), apart, 1e-4)
    unet.unfuse_lora()
    assert_same_weights(unet, pristine)


@pytest.mark.parametrize("lora_first", [False, True])
def test_stacking_with_stock_lora(unet, batch, lora_first):
    expected = predict(unet, batch)
    for step in ["lora", "spectral"] if lora_first else ["spectral", "lora"]:
        add_lora(unet, "style") if step == "lora" else add(unet, "rex")
    unet.set_adapters(["rex", "style"], weights=[0.6, 0.8])
    both = predict(unet, batch)
    unet.set_adapters("rex", weights=0.6)
    only_rex = predict(unet, batch)
    unet.set_adapters("style", weights=0.8)
    only_style = predict(unet, batch)
    assert not close(only_rex, expected, 1e-3)
    assert not close(only_style, expected, 1e-3)
    assert not close(both, only_rex, 1e-3)
    unet.set_adapters(["rex", "style"], weights=[0.6, 0.8])
    unet.fuse_lora()
    assert close(predict(unet, batch), both)
    unet.unfuse_lora()
    assert close(predict(unet, batch), both)
    unet.delete_adapters("rex")
    unet.set_adapters("style", weights=0.8)
    assert close(predict(unet, batch), only_style)
    unet.delete_adapters("style")
    assert close(predict(unet, batch), expected)


def test_lora_between_two_spectral_adapters(unet, batch):
    """LoRA wraps the first adapter's layers, the second wraps LoRA's."""
    expected = predict(unet, batch)
    add(unet, "rex")
    add_lora(unet, "style")
    add(unet, "tom", band=1, seed=1)
    unet.set_adapters(["rex", "tom", "style"])
    everything = predict(unet, batch)
    unet.fuse_lora()
    assert close(predict(unet, batch), everything)
    unet.unfuse_lora()
    unet.delete_adapters(["rex", "style", "tom"])
    assert close(predict(unet, batch), expected)
    unet.unload_lora()
    assert not layers(unet)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_unet_has_float32_adapters(dtype, batch):
    torch.manual_seed(0)
    unet = tiny_unet().to(dtype).eval()
    half = tuple(part.to(dtype) if part.is_floating_point() else part for part in batch)
    add(unet, "rex")
    add(unet, "tom", band=1, mode="rotational", seed=1)
    unet.set_adapters(["rex", "tom"])
    assert {p.dtype for n, p in unet.named_parameters() if "spectral_" in n} == {torch.float32}
    assert {b.dtype for n, b in unet.named_buffers() if "spectral_" in n} == {torch.float32}
    unet(*half).sample.float().square().mean().backward()
    assert all(p.grad is not None for n, p in unet.named_parameters() if "spectral_" in n)


def test_gradient_checkpointing_gives_the_same_gradients(unet, batch):
    add(unet, "rex", train_s=True)
    gradients = []
    for checkpointing in (False, True):
        unet.train().zero_grad()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet(*batch).sample.square().mean().backward()
        gradients.append([p.grad.clone() for p in unet.parameters() if p.requires_grad])
    assert len(gradients[0]) == 3 * len(layers(unet))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.slow
def test_compiling_a_unet(unet, batch):
    add(unet, "rex")
    add(unet, "tom", band=1, mode="rotational", seed=1)
    unet.set_adapters(["rex", "tom"])
    expected = predict(unet, batch)
    assert close(predict(torch.compile(unet, fullgraph=True, backend="aot_eager"), batch), expected)


def test_text_encoder_and_unet_of_a_pipeline():
    base = tiny_base()
    base.unet.add_adapter(SpectralConfig(r=4), adapter_name="rex")
    base.text_encoder.add_adapter(SpectralConfig(r=4), adapter_name="rex")
    projections = [name for name, module in base.text_encoder.named_modules() if isinstance(module, SpectralLinear)]
    assert {name.rsplit(".", 1)[1] for name in projections} == {"q_proj", "k_proj", "v_proj", "out_proj"}
    train(base.unet, "rex")
    train(base.text_encoder, "rex")
    generator = torch.Generator().manual_seed(0)
    image = base.pipeline("a dog", num_inference_steps=2, generator=generator, output_type="pt", height=32, width=32)
    assert torch.isfinite(torch.as_tensor(image.images)).all()
