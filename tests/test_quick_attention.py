"""Attention written out for a faster backward pass on a CPU: the same answers, and everything as before afterwards."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from spectral_fusion.base.sdxl import StableDiffusionXL
from spectral_fusion.training.device import best_precision
from tiny import tiny_base
from tiny_sdxl import tiny_sdxl


@pytest.mark.parametrize("make", [tiny_base, tiny_sdxl])
def test_attention_written_out_answers_the_same_and_is_put_back(make) -> None:  # type: ignore[no-untyped-def]
    base = make() if make is tiny_base else StableDiffusionXL(make())
    before = dict(base.unet.attn_processors)
    latents = torch.randn(2, *base.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    condition = base.framed(base.condition(["a cat", "a dog"]), [None, None], (64, 64))

    def answer() -> torch.Tensor:
        with base.autocast("bf16"):
            return base.predict(latents, torch.tensor([10, 500]), condition).float()

    fused = answer()
    with base.quick_attention("bf16", (64, 64)):
        written = answer()
        assert all(type(own) is not AttnProcessor for own in base.unet.attn_processors.values())  # too large
    assert torch.equal(fused, written)
    with base.quick_attention("bf16", latents.shape[-2:]):
        written = answer()
        assert all(type(own) is AttnProcessor for own in base.unet.attn_processors.values())
        encoders = [text.encoder for text in base.texts.values()]
        assert {encoder.config._attn_implementation for encoder in encoders} == {"eager"}
    torch.testing.assert_close(fused, written, atol=0.05, rtol=0.05)
    assert base.unet.attn_processors == before
    assert "eager" not in {text.encoder.config._attn_implementation for text in base.texts.values()}
    assert torch.equal(answer(), fused)


def test_a_cpu_that_computes_in_bfloat16_trains_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    for found, wanted in (
        ({"avx512_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "avx2": True}, "fp32"),
        ({}, "fp32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert best_precision(torch.device("cpu")) == wanted
