"""One training step of the SD 1.5 UNet with each kind of adapter on all attention projections.

    python benchmarks/adapter_step.py [--small] [--latents 64] [--rounds 7] [--device cuda --dtype bfloat16]

The kinds alternate on one UNet in one process, so that a busy machine slows all alike; a figure is the median of its
ratio to LoRA in the same round. Peak memory is taken in a process of its own for each kind. On a CPU, set
OMP_NUM_THREADS=1: the clock is that of the processor.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional as F

import sd15
from report import write_report
from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.spectral import all_triplets

RANK = 8
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
TOKENS = 77
ADAPTERS = {
    "LoRA": LoraConfig(r=RANK, target_modules=list(TARGETS)),
    "additive": SpectralConfig(r=RANK),
    "rotational": SpectralConfig(r=RANK, mode="rotational"),
}
KINDS = ("none", *ADAPTERS, "dense reference")


class DenseReference(nn.Module):
    """The additive adapter as the authors' code computes it: the whole weight from `U, S, V` at each forward."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        U, S, V = all_triplets(base.weight)
        for name, tensor in (("U", U), ("S", S), ("V", V)):
            self.register_buffer(name, tensor.to(base.weight.dtype))
        self.bias = base.bias
        self.A = nn.Parameter(torch.zeros_like(self.U[:, :RANK]))
        self.B = nn.Parameter(torch.zeros_like(self.V[:, :RANK]))

    def forward(self, x: Tensor) -> Tensor:
        padding = (0, len(self.S) - RANK)
        weight = (self.U + F.pad(self.A, padding)) * self.S @ (self.V + F.pad(self.B, padding)).T
        return F.linear(x, weight, self.bias)


class DenseAdapters:
    """Puts dense references in the place of a UNet's attention projections and takes them out again."""

    def __init__(self, unet: UNet2DConditionModel):
        self.unet = unet
        self.bases = {name: module for name, module in unet.named_modules() if name.endswith(TARGETS)}
        self.references = {name: DenseReference(base) for name, base in self.bases.items()}

    def attach(self) -> None:
        self.unet.requires_grad_(False)
        self._set(self.references)
        for reference in self.references.values():
            reference.A.requires_grad_(True)
            reference.B.requires_grad_(True)

    def detach(self) -> None:
        self._set(self.bases)

    def _set(self, modules: dict[str, nn.Module]) -> None:
        for name, module in modules.items():
            self.unet.set_submodule(name, module)


class Bench:
    """A UNet, a batch, and the adapters that go on and off it."""

    def __init__(self, settings: argparse.Namespace, kinds: tuple[str, ...]):
        self.device, dtype = torch.device(settings.device), getattr(torch, settings.dtype)
        self.unet = sd15.unet(small=settings.small).to(self.device, dtype).train().requires_grad_(False)
        self.dense = DenseAdapters(self.unet) if "dense reference" in kinds else None
        generator = torch.Generator().manual_seed(0)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(self.device, dtype).requires_grad_()

        side = settings.latents
        # the inputs ask for gradients, as with trained token embeddings: then all kinds go back through every layer
        self.batch = noise(1, 4, side, side), torch.tensor([500], device=self.device), noise(1, TOKENS, 768)
        self.target = noise(1, 4, side, side).detach()

    def attached(self, kind: str) -> Callable[[], None]:
        """Attach a kind of adapter; returns what takes it off."""
        if kind == "none":
            return lambda: None
        if kind == "dense reference":
            assert self.dense is not None
            self.dense.attach()
            return self.dense.detach
        self.unet.add_adapter(ADAPTERS[kind])
        return self.unet.unload_lora

    def step(self, optimizer: torch.optim.Optimizer | None) -> float:
        """Forward, backward, optimiser; in seconds."""
        start = self._clock()
        loss = F.mse_loss(self.unet(*self.batch).sample.float(), self.target.float())
        loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        return self._clock() - start

    def run(self, kind: str, steps: int) -> tuple[list[float], int]:
        """(seconds of each step, trainable parameters)."""
        detach = self.attached(kind)
        trained = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None
        seconds = [self.step(optimizer) for _ in range(steps)]
        detach()
        return seconds, sum(parameter.numel() for parameter in trained)

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()  # what other programs take of a shared machine does not count


def peak_memory(settings: argparse.Namespace, kind: str) -> int:
    """Bytes at the peak of two steps, in this process."""
    bench = Bench(settings, (kind,))
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    bench.run(kind, 2)
    if bench.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    # not getrusage: its figure starts at that of the process that started this one
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def compare(settings: argparse.Namespace) -> list[list[object]]:
    """The table's rows."""
    bench = Bench(settings, KINDS)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    trained = {}
    for round_ in range(settings.rounds + 1):
        for kind in KINDS:
            (*_, last), trained[kind] = bench.run(kind, settings.steps)
            if round_ > 0:  # the first warms up allocators and kernels
                seconds[kind].append(last)
            print(f"round {round_}: {kind} {last:.3f} s", file=sys.stderr)
    del bench
    peaks = {kind: _in_own_process(kind) for kind in KINDS}
    rows: list[list[object]] = []
    for kind in KINDS:
        ratio = statistics.median(own / lora for own, lora in zip(seconds[kind], seconds["LoRA"], strict=True))
        times = f"{statistics.median(seconds[kind]):.3f}", f"{ratio:.3f}"
        memory = f"{peaks[kind] / 2**20:.0f}", f"{peaks[kind] / peaks['LoRA']:.3f}"
        rows.append([kind, f"{trained[kind]:,}", *times, *memory])
    return rows


def _in_own_process(kind: str) -> int:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak", kind]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--small", action="store_true", help="a narrow UNet, for a quick look; writes no report")
    parser.add_argument("--latents", type=int, default=64, help="side of the latents")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps a kind a round, the last of which counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--peak", choices=KINDS, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.peak:
        print(peak_memory(settings, settings.peak))
        return
    rows = compare(settings)
    columns = ["adapter", "trained parameters", "step, s", "time / LoRA", "peak MiB", "memory / LoRA"]
    clock = "wall clock" if settings.device == "cuda" else "processor time"
    remarks = f"""One training step (forward, backward, AdamW) of the Stable Diffusion 1.5 UNet with random weights, all
attention projections adapted at r={RANK}; batch 1, latents {settings.latents}x{settings.latents}, {settings.dtype} on
{settings.device}, {clock}. Median of {settings.rounds} alternating rounds; ratios are medians of the ratios in a round.
Memory is the peak of a process of its own. "none" computes the gradient of the inputs only; the dense reference
rebuilds each weight from `U, S, V` at each forward, as the authors' code does."""
    write_report(
        f"adapter_step_{settings.device}_{settings.latents}",
        "A training step by adapter",
        columns,
        rows,
        remarks,
        save=not settings.small,
    )


if __name__ == "__main__":
    main()
