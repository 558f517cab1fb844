"""The tuner: finds the layers of a model, checks them all, then wraps each in a spectral layer."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import get_pattern_key
from torch import nn

from spectral_fusion.adapter.config import SPECTRAL, SpectralConfig
from spectral_fusion.adapter.kinds import check_kind, is_quantised, matrix_of, matrix_shape
from spectral_fusion.adapter.layer import SpectralConv2d, SpectralLayer, SpectralLinear
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band, Triplets, decompose

DEFAULT_TARGETS = {  # those of stock LoRA for language models, all attention projections where bases of pictures ask
    **TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    "UNet2DConditionModel": ["to_q", "to_k", "to_v", "to_out.0"],
    "clip_text_model": ["q_proj", "k_proj", "v_proj", "out_proj"],
}


class SpectralModel(BaseTuner):
    """PEFT's model of the method: `get_peft_model(model, SpectralConfig(...))` makes one.

    Raises:
        InputError: no layer matches, a layer is of another kind, merged or too small for the band, or the adapter's
            name is taken. All layers are checked before any is touched, and the model can be tried again.
    """

    prefix = "spectral_"
    tuner_layer_cls = SpectralLayer
    target_module_mapping = DEFAULT_TARGETS

    def __init__(self, model: nn.Module, peft_config: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        if adapter_name in getattr(model, "peft_config", {}):
            raise InputError(f"adapter {adapter_name!r} is already on the model; choose another name or delete it")
        super().__init__(model, peft_config, adapter_name, *args, **kwargs)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        self._bases: dict[str, Triplets] = {}  # of the layers that are about to be wrapped
        try:
            _check_name(adapter_name)
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except BaseException:  # an interruption too must leave a model that can be tried again
            self.peft_config.pop(adapter_name, None)
            if not self.peft_config and getattr(model, "_hf_peft_config_loaded", False):
                model._hf_peft_config_loaded = False  # diffusers and transformers set it before they call PEFT
            raise
        finally:
            self._bases = {}

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if not autocast_adapter_dtype:  # adapters are float32 unless the caller asks for the base's type
            for layer in self.modules():
                if isinstance(layer, SpectralLayer):
                    layer.cast_to_base(adapter_name)

    def _prepare_adapter_config(self, peft_config: SpectralConfig, model_config: dict[str, Any]) -> SpectralConfig:
        if peft_config.target_modules is None:
            architecture = model_config.get("model_type") or type(self.model).__name__
            if architecture not in DEFAULT_TARGETS:
                raise InputError(f"no default target_modules for {architecture}; name the layers to adapt")
            peft_config.target_modules = set(DEFAULT_TARGETS[architecture])
        return peft_config

    def _prepare_model(self, peft_config: SpectralConfig, model: nn.Module) -> None:
        """Check and decompose every layer that will be wrapped: PEFT calls this before it touches the first."""
        config = _maybe_include_all_linear_layers(peft_config, model)
        wrapped = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
        targets = {
            name: module
            for name, module in model.named_modules()
            if name and not name.startswith(wrapped) and self._check_target_module_exists(config, name)
        }
        if not targets:
            raise InputError(f"target_modules {config.target_modules} match no layer of {type(model).__name__}")
        bands = {name: Band(config.band, _setting(config, "r", name), config.side) for name in targets}
        for name, module in targets.items():
            _check_target(name, module, bands[name], decomposed=config.init_basis is not True)
        for name, module in targets.items():
            base = _base_layer(module)
            if isinstance(config.init_basis, Mapping):
                self._bases[name] = _given_basis(config.init_basis, name, base, bands[name].rank)
            elif config.init_basis and not base.weight.is_meta:
                self._bases |= decompose({name: matrix_of(base)}, bands[name])
        peft_config.init_basis = bool(peft_config.init_basis)  # the layers hold the triplets from here on

    def _create_and_replace(
        self,
        peft_config: SpectralConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        settings = {
            "r": _setting(peft_config, "r", current_key),
            "alpha": _setting(peft_config, "alpha", current_key),
            "basis": self._bases.get(current_key),
        }
        if isinstance(target, SpectralLayer):
            target.update_layer(adapter_name, peft_config, **settings)
            return
        layer_class = SpectralConv2d if isinstance(_base_layer(target), nn.Conv2d) else SpectralLinear
        layer = layer_class(target, adapter_name, peft_config, **settings)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


def _setting(config: SpectralConfig, name: Literal["r", "alpha"], layer: str) -> Any:
    """The rank or the strength of one layer: the pattern's that its name matches, else the common one."""
    pattern = config.rank_pattern if name == "r" else config.alpha_pattern
    return pattern.get(get_pattern_key(pattern, layer), getattr(config, name))


def _base_layer(module: nn.Module) -> nn.Module:
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def _check_name(adapter_name: str) -> None:
    """An adapter's name becomes an attribute of PyTorch containers, which have some of their own."""
    taken = any(hasattr(container, adapter_name) for container in (nn.ParameterDict(), BufferDict()))
    if not adapter_name or "." in adapter_name or taken:
        raise InputError(f"PyTorch cannot store an adapter called {adapter_name!r}; give a longer name without a dot")


def _check_target(name: str, module: nn.Module, band: Band, *, decomposed: bool) -> None:
    base = _base_layer(module)
    check_kind(name, base)
    if is_quantised(base) and not decomposed:
        raise InputError(
            f"{name!r} is quantised ({type(base).__name__}, {base.weight.dtype}); "
            "decompose it before it is quantised and give init_basis, or load the model in bfloat16"
        )
    while isinstance(module, BaseTunerLayer):
        if module.merged:
            raise InputError(f"{name!r} has {module.merged_adapters} merged into its weight; unmerge first")
        module = module.base_layer
    directions = min(matrix_shape(base))
    if band.depth > directions:
        raise InputError(
            f"{band} needs {band.depth} directions; {name!r} has {directions}. Lower the rank or the band."
        )


def _given_basis(bases: Mapping[str, Triplets], name: str, base: nn.Module, rank: int) -> Triplets:
    """One layer's triplets of `init_basis`, as the layer will hold them."""
    if name not in bases:
        raise InputError(f"init_basis has no triplets for {name!r}; decompose every layer that is adapted")
    rows, columns = matrix_shape(base)
    needed = [(rows, rank), (rank,), (columns, rank)]
    if (got := [tuple(part.shape) for part in bases[name]]) != needed:
        raise InputError(f"init_basis has triplets of shapes {got} for {name!r}; it needs {needed}")
    kind = torch.float32 if is_quantised(base) else torch.promote_types(base.weight.dtype, torch.float32)
    return Triplets(*(part.detach().to(base.weight.device, kind, copy=True) for part in bases[name]))


PEFT_TYPE_TO_CONFIG_MAPPING[SPECTRAL] = SpectralConfig
PEFT_TYPE_TO_TUNER_MAPPING[SPECTRAL] = SpectralModel
PEFT_TYPE_TO_PREFIX_MAPPING[SPECTRAL] = SpectralModel.prefix
