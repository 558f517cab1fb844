"""The two bases: small language models from configurations, trained here from scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import GPTNeoConfig, GPTNeoForCausalLM, LlamaConfig, LlamaForCausalLM

from language.tasks import IGNORED, LENGTH, TASKS, WORDS, Task, batch, exact_matches, without_padding
from spectral_fusion.atomic import atomic_file

WIDTH, BLOCKS, HEADS = 160, 4, 4
STEPS, BATCH, RATE = 2000, 64, 2e-3
TESTED = 500  # questions


@dataclass(frozen=True)
class Base:
    """A model, what it is trained on from scratch, and what it is adapted to.

    make: the model with random weights. targets: its linear layers, which adapters change.
    share: of the study's steps; a shift that every method learns in all of them tells nothing apart.
    """

    name: str
    make: Callable[[int, int], nn.Module]
    learned: Task
    shifted: Task
    targets: tuple[str, ...]
    share: float = 1.0

    def steps(self, wanted: int) -> int:
        """Of an adaptation."""
        return max(1, round(self.share * wanted))


def llama(width: int, blocks: int) -> nn.Module:
    sizes = {"hidden_size": width, "intermediate_size": 2 * width + width // 2, "num_hidden_layers": blocks}
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=True,
            initializer_range=0.05,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
            **sizes,
        )
    )


def gpt(width: int, blocks: int) -> nn.Module:
    """GPT-2's blocks with `nn.Linear` in place of `Conv1D`, which half of PEFT's methods cannot adapt."""
    return GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=len(WORDS),
            hidden_size=width,
            num_layers=blocks,
            attention_types=[[["global"], blocks]],
            num_heads=HEADS,
            intermediate_size=4 * width,
            max_position_embeddings=LENGTH,
            initializer_range=0.05,
            resid_dropout=0.0,
            embed_dropout=0.0,
            attention_dropout=0.0,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )


BASES = {
    base.name: base
    for base in (
        Base(
            "llama",
            llama,
            TASKS["one-step problems"],
            TASKS["problems of two people"],
            ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        ),
        Base(
            "gpt",
            gpt,
            TASKS["copy and turn"],
            TASKS["turn and next"],
            ("q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"),
            share=0.2,
        ),
    )
}


def answer_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens; ()."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


@torch.no_grad()
def accuracy(model: Any, task: Task, part: Any, count: int = TESTED) -> float:
    """Share of the answers of a part that are right in every token."""
    model.eval()
    rows, labels = without_padding(*batch(task, part, count, "fixed"))
    found = [
        exact_matches(model(input_ids=a).logits, b) for a, b in zip(rows.split(100), labels.split(100), strict=True)
    ]
    return float(torch.cat(found).float().mean())


def trained_base(
    base: Base,
    folder: Path,
    on_progress: Callable[[str], None],
    *,
    width: int = WIDTH,
    blocks: int = BLOCKS,
    steps: int = STEPS,
) -> nn.Module:
    """The base, trained on its own task; kept in `folder`, and found there again."""
    torch.manual_seed(0)
    model, path = base.make(width, blocks), folder / f"{base.name}-{width}-{blocks}-{steps}.safetensors"
    if path.is_file():
        model.load_state_dict(load_file(path), strict=False)  # tied weights are in the file once
        return model
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 2), pct_start=0.1)
    model.train()
    for step in range(steps):
        rows, labels = batch(base.learned, "train", BATCH, str(step))
        loss = answer_loss(model(input_ids=rows).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            on_progress(f"{base.name}: training the base, step {step + 1} of {steps}, loss {loss.item():.3f}")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as part:
        save_file(distinct(model), part)
    return model


def distinct(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state, each tensor once: tied weights share memory, which the format refuses."""
    found: dict[int, str] = {}
    state = model.state_dict()
    for name, tensor in state.items():
        found.setdefault(tensor.data_ptr(), name)
    return {name: state[name].contiguous() for name in found.values()}
