"""Fine-tune a language model with a spectral adapter: `python examples/causal_lm.py`.

A tiny Llama with random weights learns to count, in seconds on a CPU. For a model of your own, replace `model` by
`AutoModelForCausalLM.from_pretrained(...)` and `CountingUp` by your tokenised texts.
"""

import torch
from peft import get_peft_model
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from spectral_fusion.adapter import SpectralConfig, save_as_lora


class CountingUp(Dataset):
    """Sequences of eight numbers, each one more than the one before, modulo 32."""

    def __len__(self) -> int:
        return 256

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        numbers = (i + torch.arange(8)) % 32
        return {"input_ids": numbers, "labels": numbers}


def main(folder: str = "out/causal-lm", steps: int = 100) -> list[float]:
    """Train, and save the adapter and a LoRA that computes the same; returns the losses on the way."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.1}
    base = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, num_attention_heads=4))
    model = get_peft_model(base, SpectralConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.print_trainable_parameters()
    arguments = TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
    )
    trainer = Trainer(model, arguments, train_dataset=CountingUp())
    trainer.train()
    model.save_pretrained(f"{folder}/adapter")  # PeftModel.from_pretrained(base, f"{folder}/adapter") loads it
    save_as_lora(model, f"{folder}/lora")  # for programs that read PEFT's LoRAs
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    print("losses:", *(f"{float(loss):.2f}" for loss in main()))
