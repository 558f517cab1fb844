"""Pictures drawn and encoded once, kept in a few files, and used several times before newer ones take their place.

Drawing and encoding cost as much as a tenth of a training step. Batch `n` draws from the newest `window` shards of that
time, so it is a function of the seed and of `n` alone, and a run goes on where it stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from spectral_fusion.toybox.data import Example

Record = Callable[[random.Random, int], Example]


@dataclass
class LatentShards:
    """A source of batches for the denoiser.

    Args:
        make: draws one record: "pixels" and whatever else the loss takes, stacked; its second argument is how many
            pictures the denoiser has seen by then.
        empty: the tokens of no caption, which takes the place of a caption in one of ten cases.
        size: pictures a shard.
        reuse: how often each picture is used, on average.
    """

    make: Record
    vae: AutoencoderKL
    empty: Tensor
    seed: int
    folder: Path
    size: int = 2048
    window: int = 12
    reuse: int = 6
    drop: float = 0.1
    _shards: dict[int, Example] = field(default_factory=dict)

    def batches(self, batch: int, start: int, stop: int, workers: int = 0) -> Iterator[Example]:
        """Batches number `start` to `stop` of `batch` examples."""
        for number in range(start, stop):
            newest = number * batch // (self.reuse * self.size)
            shards = self._open(max(0, newest - self.window + 1), newest)
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            yield self._chosen(shards, batch, rng)

    def _chosen(self, shards: list[Example], batch: int, rng: torch.Generator) -> Example:
        shard = torch.randint(len(shards), (batch,), generator=rng).tolist()
        row = torch.randint(self.size, (batch,), generator=rng).tolist()
        rows = [{key: tensor[r] for key, tensor in shards[s].items()} for s, r in zip(shard, row, strict=True)]
        examples = {key: torch.stack([each[key] for each in rows]) for key in rows[0]}
        wording = torch.randint(examples["tokens"].shape[1], (batch,), generator=rng)
        tokens = examples["tokens"][torch.arange(batch), wording].long()
        tokens[torch.rand(batch, generator=rng) < self.drop] = self.empty
        return {**examples, "latents": examples["latents"].float(), "tokens": tokens}

    def _open(self, first: int, last: int) -> list[Example]:
        for number in range(first, last + 1):
            if number not in self._shards:
                self._shards[number] = self._load(number)
        for number in [number for number in self._shards if number < first]:
            del self._shards[number]
            self._path(number).unlink(missing_ok=True)
        return [self._shards[number] for number in range(first, last + 1)]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def _load(self, number: int) -> Example:
        path, made_by = self._path(number), self._fingerprint()
        if path.exists():
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("made_by") == made_by:
                    return load_file(path)
        shard = self._drawn(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(shard, partial, {"made_by": made_by})
        partial.replace(path)
        return shard

    def _fingerprint(self) -> str:
        weight = self.vae.quant_conv.weight.detach().double()
        return f"seed {self.seed} size {self.size} vae {weight.sum().item():.9g} {weight.abs().sum().item():.9g}"

    @torch.no_grad()
    def _drawn(self, number: int, batch: int = 64) -> Example:
        """Shard `number`: latents of unit variance in half precision, and the rest of the records as it is."""
        device = next(self.vae.parameters()).device
        parts: list[Example] = []
        for begin in range(0, self.size, batch):
            count = min(batch, self.size - begin)
            rngs = [random.Random(f"shard {self.seed} {number} {begin + i}") for i in range(count)]
            records = [self.make(rng, number * self.size * self.reuse) for rng in rngs]
            part = {key: torch.stack([record[key] for record in records]) for key in records[0]}
            pixels = part.pop("pixels").to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                mean = self.vae.encode(pixels).latent_dist.mean
            part["latents"] = (mean.float() * self.vae.config.scaling_factor).half().cpu().contiguous()
            parts.append(part)
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
