"""A trained adapter as a stock LoRA of PEFT: exact, by its factors."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from torch import Tensor
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from spectral_fusion.adapter.layer import SpectralLayer
from spectral_fusion.atomic import write_safetensors
from spectral_fusion.errors import InputError

PREFIX = "base_model.model."


def as_lora(model: PeftModel, adapter_name: str = "default") -> tuple[LoraConfig, dict[str, Tensor]]:
    """Settings and tensors of a LoRA that computes the same, with its head and other `modules_to_save`.

    Its rank is 2r for an additive adapter and r for a rotational one, padded with zeros where layers differ, and equal
    to its alpha. The strength that the adapter has now is in the tensors.

    Raises:
        InputError: the model has no spectral adapter of that name.
    """
    layers = {
        name.removeprefix(PREFIX): module
        for name, module in model.named_modules()
        if isinstance(module, SpectralLayer) and adapter_name in module.r
    }
    if not layers:
        raise InputError(f"the model has no spectral adapter {adapter_name!r}; it has {', '.join(model.peft_config)}")
    with torch.no_grad():
        factors = {name: layer.factors(adapter_name) for name, layer in layers.items()}
    rank = max(len(down) for _, down in factors.values())
    kept = get_peft_model_state_dict(model, adapter_name=adapter_name)
    tensors = {key: tensor for key, tensor in kept.items() if ".spectral_" not in key}
    for name, (up, down) in factors.items():
        up, down = up * layers[name].scaling[adapter_name], F.pad(down, (0, 0, 0, rank - len(down)))
        up = F.pad(up, (0, rank - up.shape[1]))
        weight = layers[name].weight
        if weight.ndim == 4:
            up, down = up[:, :, None, None], down.unflatten(1, weight.shape[1:])
        tensors |= {f"{PREFIX}{name}.lora_A.weight": down, f"{PREFIX}{name}.lora_B.weight": up}
    given = model.peft_config[adapter_name]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(layers),
        modules_to_save=given.modules_to_save,
        task_type=given.task_type,
        base_model_name_or_path=given.base_model_name_or_path,
        fan_in_fan_out=all(isinstance(layer.get_base_layer(), Conv1D) for layer in layers.values()),
        inference_mode=True,
    )
    return config, {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}


def save_as_lora(model: PeftModel, folder: str | Path, adapter_name: str = "default") -> Path:
    """Write `as_lora` as a folder that `PeftModel.from_pretrained` loads without this package."""
    config, tensors = as_lora(model, adapter_name)
    folder = Path(folder)
    config.save_pretrained(str(folder))
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    return folder
