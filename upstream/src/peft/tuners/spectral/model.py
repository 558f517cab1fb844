# Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0
from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import get_pattern_key
from torch import nn
from transformers.pytorch_utils import Conv1D

from .config import SpectralConfig
from .layer import SpectralConv2d, SpectralLayer, SpectralLinear


class SpectralModel(BaseTuner):
    """
    A model with spectral adapters: the singular vectors of its weights are fine-tuned, a band at a time.

    The method is described in [Spectral Adapter: Fine-Tuning in Spectral Space](https://huggingface.co/papers/2405.13952).

    Args:
        model ([`torch.nn.Module`]): The model to be adapted.
        config ([`SpectralConfig`]): The configuration of the adapter.
        adapter_name (`str`): The name of the adapter, "default" unless given.
        low_cpu_mem_usage (`bool`, `optional`): Create empty adapter weights on the meta device.

    Returns:
        `torch.nn.Module`: The model with the adapter on it.
    """

    prefix: str = "spectral_"
    tuner_layer_cls = SpectralLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _create_and_replace(
        self,
        peft_config: SpectralConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs: Any,
    ) -> None:
        ranks, alphas = peft_config.rank_pattern, peft_config.alpha_pattern
        r = ranks.get(get_pattern_key(ranks, current_key), peft_config.r)
        alpha = alphas.get(get_pattern_key(alphas, current_key), peft_config.alpha)
        if isinstance(target, SpectralLayer):
            target.update_layer(adapter_name, r, alpha, peft_config)
            return
        new_module = self._create_new_module(peft_config, adapter_name, target, r, alpha)
        if adapter_name not in self.active_adapters:
            new_module.requires_grad_(False)
        self._replace_module(parent, target_name, new_module, target)

    @staticmethod
    def _create_new_module(
        config: SpectralConfig, adapter_name: str, target: nn.Module, r: int, alpha: float
    ) -> SpectralLinear:
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not base.weight.is_floating_point():
            raise TypeError(f"{type(base).__name__} is quantized; spectral adapters need its plain weight.")
        if isinstance(base, nn.Conv2d) and base.groups == 1:
            return SpectralConv2d(target, adapter_name, r, alpha, config)
        if isinstance(base, (nn.Linear, Conv1D)):
            return SpectralLinear(target, adapter_name, r, alpha, config)
        raise TypeError(
            f"Target module {target} is not supported. Spectral adapters fit `torch.nn.Linear`, `Conv1D` and "
            "`torch.nn.Conv2d` without groups."
        )

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if autocast_adapter_dtype:
            return
        for layer in self.modules():  # adapters are made in float32; here the base's type was asked for
            if isinstance(layer, SpectralLayer):
                dtype: torch.dtype = layer.get_base_layer().weight.dtype
                for name in layer.adapter_layer_names:
                    container = getattr(layer, name)
                    if adapter_name in container:
                        container[adapter_name].data = container[adapter_name].data.to(dtype)
