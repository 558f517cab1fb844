"""`examples/causal_lm.py` does what it says."""

import importlib.util
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

EXAMPLE = Path(__file__).parents[1] / "examples" / "causal_lm.py"


def test_a_tiny_llama_learns_to_count_and_its_two_files_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("causal_lm", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.chdir(tmp_path)
    losses = example.main(str(tmp_path), steps=40)
    assert losses[0] > 1.0
    assert losses[-1] < 0.4
    outputs = []
    for name in ("adapter", "lora"):
        torch.manual_seed(0)
        sizes = {"vocab_size": 32, "hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.1}
        base = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, num_attention_heads=4))
        model = PeftModel.from_pretrained(base, tmp_path / name).eval()
        outputs.append(model(torch.arange(8)[None]).logits)
    assert outputs[0][0, -1].argmax() == 8
    assert torch.allclose(*outputs, atol=1e-3)
