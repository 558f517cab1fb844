"""Puts `upstream/` into the installed PEFT of this process, as if its registration were edited; a pytest plugin.

    python tests/upstream_peft.py FOLDER    # loads FOLDER/ours, and writes FOLDER/theirs and what both compute

It runs in a process of its own: this package registers the same method under the same name.
"""

import sys
from pathlib import Path
from typing import Any

import peft
import peft.tuners
import torch
from peft import PeftModel, get_peft_model
from peft.utils import PeftType
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

ROOT = Path(__file__).parents[1]
UPSTREAM = ROOT / "upstream" / "src" / "peft" / "tuners"
SETTINGS: dict[str, dict[str, Any]] = {
    f"{mode}-{side}-{train_s}": {"mode": mode, "side": side, "train_s": train_s, "band": 1, "alpha": 0.7, "r": 3}
    for mode in ("additive", "rotational")
    for side in ("top", "bottom")
    for train_s in (False, True)
}
COMMON = {"target_modules": ["first", "second", "conv"], "init_weights": False, "rank_pattern": {"second": 2}}


class Small(nn.Module):
    """One layer of each kind that the tuner adapts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(2, 8, 3, padding=1), nn.Linear(8, 12), Conv1D(10, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(self.conv(x).relu().mean((2, 3))).relu())


def model() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def inputs() -> torch.Tensor:
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def prepare() -> None:
    """The edits that a proposal makes in PEFT's own files: a member of the enum, a package, two names."""
    member = str.__new__(PeftType, "SPECTRAL")
    member._name_ = member._value_ = "SPECTRAL"
    PeftType._member_names_.append("SPECTRAL")
    PeftType._member_map_["SPECTRAL"] = PeftType._value2member_map_["SPECTRAL"] = member
    type.__setattr__(PeftType, "SPECTRAL", member)
    peft.tuners.__path__.append(str(UPSTREAM))
    from peft.tuners import spectral

    peft.SpectralConfig, peft.SpectralModel = spectral.SpectralConfig, spectral.SpectralModel


def exchange(folder: Path) -> None:
    """What the proposal makes of our files, and files of its own."""
    outputs = {}
    for name, settings in SETTINGS.items():
        loaded = PeftModel.from_pretrained(model(), folder / "ours" / name).eval()
        outputs[f"{name}.loaded"] = loaded(inputs())
        made = get_peft_model(model(), peft.SpectralConfig(**COMMON | settings)).eval()
        made.save_pretrained(folder / "theirs" / name)
        outputs[f"{name}.made"] = made(inputs())
    save_file({name: tensor.detach().contiguous() for name, tensor in outputs.items()}, folder / "outputs.safetensors")


if "SPECTRAL" not in list(PeftType) and "spectral_fusion" not in sys.modules:
    prepare()

if __name__ == "__main__":
    exchange(Path(sys.argv[1]))
