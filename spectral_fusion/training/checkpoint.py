"""What a stopped training continues from: one safetensors file, replaced whole, so a kill at any moment leaves one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from spectral_fusion.atomic import write_safetensors
from spectral_fusion.errors import InputError
from spectral_fusion.reading import open_tensors, parse_json

FILE_NAME = "checkpoint.safetensors"
KEY = "spectral_fusion.training"


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` optimizer steps.

    tensors: trained tensors and optimizer state, by name; facts: everything else, as JSON values.
    """

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        header = json.dumps({"step": self.step, "facts": self.facts})
        # Copies: an optimizer may keep one tensor under several names, which safetensors refuses.
        tensors = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        write_safetensors(path, tensors, {KEY: header})

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Raises InputError where the file is none of ours or damaged."""
        header = read_header(path)
        with open_tensors(path) as file:
            tensors = file.read_all()
        return cls(header["step"], tensors, header["facts"])


def read_header(path: Path) -> dict[str, Any]:
    """`step` and `facts` of a checkpoint, without its tensors.

    Raises:
        InputError: the file is none of ours or damaged.
    """
    try:
        with open_tensors(path) as file:
            return parse_json(file.metadata[KEY], f"the checkpoint {path}")
    except (KeyError, InputError) as error:
        raise InputError(f"{path} is damaged or no checkpoint; delete it and train again") from error
