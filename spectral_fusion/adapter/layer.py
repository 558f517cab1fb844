"""A frozen layer plus the deltas of the spectral adapters on it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_fusion.adapter.config import SpectralConfig
from spectral_fusion.adapter.kinds import features, is_quantised, like_weight, matrix_shape
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import (
    Factors,
    Triplets,
    additive_factors,
    rotational_factors,
)

RANDOM_SIZE = 0.1  # of the values that a new adapter has where it is not to begin without a change


class SpectralLayer(nn.Module, BaseTunerLayer):
    """What linear and convolution layers share: the tensors, the delta, its strength, merging.

    Every container is keyed by adapter name. The wrapped layer is never changed except by `merge`.
    """

    adapter_layer_names = ("spectral_A", "spectral_B", "spectral_X_U", "spectral_X_V", "spectral_c")
    basis_names = ("spectral_U", "spectral_S", "spectral_V")
    other_param_names = ("r", "alpha", "scaling", "parts", *basis_names)

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: SpectralConfig,
        *,
        r: int,
        alpha: float,
        basis: Triplets | None,
    ):
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = features(self.get_base_layer())
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict())
        for name in self.basis_names:
            setattr(self, name, BufferDict(persistent=True))
        self.r: dict[str, int] = {}
        self.parts: dict[str, tuple[str, ...]] = {}  # the containers that an adapter has a tensor in
        self.alpha: dict[str, float] = {}
        self.scaling: dict[str, float] = {}  # what the delta is multiplied by now: alpha times the user's weight
        self.merged_adapters: list[str] = []
        self._merged_scaling: dict[str, float] = {}  # the strengths at the time of merging
        self._pristine: Tensor | None = None  # the weight before merging: subtracting a delta would not restore it
        self._merged_sum = 0
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, r=r, alpha=alpha, basis=basis)

    def update_layer(
        self, adapter_name: str, config: SpectralConfig, *, r: int, alpha: float, basis: Triplets | None
    ) -> None:
        """Add an adapter to this layer; its delta is exactly zero.

        Args:
            basis: the band's triplets, or None to allocate zeros for a file that is loaded next.
        """
        base = self.get_base_layer()
        rows, columns = matrix_shape(base)
        kind = {"dtype": torch.float32 if is_quantised(base) else _wide(base.weight), "device": base.weight.device}
        if config.mode == "additive":
            self.spectral_A[adapter_name] = nn.Parameter(torch.zeros(rows, r, **kind))
            self.spectral_B[adapter_name] = nn.Parameter(torch.zeros(columns, r, **kind))
        else:
            self.spectral_X_U[adapter_name] = nn.Parameter(torch.zeros(r, r, **kind))
            self.spectral_X_V[adapter_name] = nn.Parameter(torch.zeros(r, r, **kind))
        if config.train_s:  # zero means no change in both modes, so that weight decay cannot shrink the base
            self.spectral_c[adapter_name] = nn.Parameter(torch.zeros(r, **kind))
        if not config.init_weights:
            for name in self.adapter_layer_names:
                if adapter_name in (container := getattr(self, name)):
                    nn.init.normal_(container[adapter_name], std=RANDOM_SIZE)
        if basis is None:
            basis = Triplets(*(torch.zeros(*shape, **kind) for shape in ((rows, r), (r,), (columns, r))))
        for name, part in zip(self.basis_names, basis, strict=True):
            getattr(self, name)[adapter_name] = part
        self.r[adapter_name], self.alpha[adapter_name], self.scaling[adapter_name] = r, alpha, alpha
        trained = [name for name in self.adapter_layer_names if adapter_name in getattr(self, name)]
        self.parts[adapter_name] = (*self.basis_names, *trained)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def factors(self, adapter_name: str) -> Factors:
        """The adapter's delta at strength one, in float32 or better whatever type the model was cast to."""
        tensors = self.tensors(adapter_name)
        with _without_autocast(tensors["U"]):
            combine = additive_factors if adapter_name in self.spectral_A else rotational_factors
            return combine(**tensors)

    def tensors(self, adapter_name: str) -> dict[str, Tensor]:
        """The adapter's tensors by the names of the formulas, in float32 or better.

        U, S, V; A, B or X_U, X_V; and c where it is trained: a shift of S in an additive adapter, a scale in a
        rotational one.
        """
        names = self.parts[adapter_name]
        found = {name.removeprefix("spectral_"): _full(getattr(self, name)[adapter_name]) for name in names}
        if "c" in found:
            found["c"] = self._scale_or_shift(found, found["c"], 1)
        return found

    @torch.no_grad()
    def set_tensors(self, adapter_name: str, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors named as `tensors` names them into an adapter that was allocated for them."""
        for part, tensor in tensors.items():
            value = self._scale_or_shift(tensors, tensor, -1) if part == "c" else tensor
            getattr(self, f"spectral_{part}")[adapter_name].copy_(value)

    @staticmethod
    def _scale_or_shift(tensors: Mapping[str, Tensor], c: Tensor, one: int) -> Tensor:
        """What is trained of a rotational adapter's scale c is c - 1."""
        return c + one if "X_U" in tensors else c

    def get_delta_weight(self, adapter_name: str, scaling: float | None = None) -> Tensor:
        """The adapter's delta in the weight's shape, at its present strength or at `scaling`."""
        up, down = self.factors(adapter_name)
        delta = (up @ down).mul_(self.scaling[adapter_name] if scaling is None else scaling)
        return like_weight(delta, self.get_base_layer())

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return y
        for name in self.active_adapters:
            if name in self.r and name not in self.merged_adapters:
                up, down = self.factors(name)
                y = self._add_delta(x.to(y.dtype), y, up.to(y.dtype), down.to(y.dtype), self.scaling[name])
        return y

    def _add_delta(self, x: Tensor, y: Tensor, up: Tensor, down: Tensor, scaling: float) -> Tensor:
        """`y` plus `scaling` times what `up @ down` makes of `x`, without their product."""
        raise NotImplementedError

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the deltas of the active adapters, or of those named, to the base weight.

        Args:
            safe_merge: leave the weight alone and raise ValueError where the result is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.r]
        if not names:
            return
        if is_quantised(self.get_base_layer()):
            raise InputError(f"a quantised weight cannot take {', '.join(names)}; load the base in bfloat16 to merge")
        merged = self._plus_deltas({name: self.scaling[name] for name in names})
        if safe_merge and not torch.isfinite(merged).all():
            raise ValueError(f"merging {names} gives NaN or infinity; an adapter is broken")
        if self._pristine is None:
            self._pristine = self.weight.detach().clone()
        self.weight.copy_(merged)
        self._merged_sum = _bit_sum(self.weight)
        self.merged_adapters += names
        self._merged_scaling |= {name: self.scaling[name] for name in names}

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take every merged delta out again: bit for bit, unless another tuner has since merged into the weight."""
        if not self.merged:
            return
        if _bit_sum(self.weight) == self._merged_sum:
            self.weight.copy_(self._pristine)
        else:
            self.weight.copy_(self._plus_deltas({name: -scale for name, scale in self._merged_scaling.items()}))
        self._pristine = None
        self._merged_scaling.clear()
        self.merged_adapters.clear()

    def _plus_deltas(self, scalings: dict[str, float]) -> Tensor:
        """The base weight plus some deltas, rounded once: (out, in, ...) in float32 or better."""
        total = _full(self.weight).clone()
        for name, scaling in scalings.items():
            total += self.get_delta_weight(name, scaling)
        return total

    def cast_to_base(self, adapter_name: str) -> None:
        """Keep what is trained in the base's type: half the memory, and an optimizer that rounds as that type does."""
        base = self.get_base_layer()
        for name in self.adapter_layer_names:
            if adapter_name in (container := getattr(self, name)) and not is_quantised(base):
                container[adapter_name].data = container[adapter_name].data.to(base.weight.dtype)

    def delete_adapter(self, adapter_name: str) -> None:
        if adapter_name in self.merged_adapters:
            raise InputError(f"adapter {adapter_name!r} is merged into the weights; unmerge before deleting it")
        super().delete_adapter(adapter_name)

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set the adapter's strength to `scale` times its alpha."""
        if adapter in self.alpha:
            self.scaling[adapter] = scale * self.alpha[adapter]

    def scale_layer(self, scale: float) -> None:
        """Multiply the strength of all active adapters."""
        for name in self.active_adapters:
            if name in self.r:
                self.scaling[name] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the strength of all active adapters; None: back to alpha."""
        for name in self.active_adapters:
            if scale is None:
                self.set_scale(name, 1.0)
            elif name in self.r:
                self.scaling[name] /= scale

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move to the device and keep float32: PEFT's own would cast to the base layer's type."""
        for name in (*self.adapter_layer_names, *self.basis_names):
            container = getattr(self, name)
            if adapter_name in container and not container[adapter_name].is_meta:
                container[adapter_name] = container[adapter_name].to(device or self.weight.device)


class SpectralLinear(SpectralLayer):
    """A spectral adapter on `nn.Linear`, or on the `Conv1D` of GPT-2, which computes the same."""

    def _add_delta(self, x: Tensor, y: Tensor, up: Tensor, down: Tensor, scaling: float) -> Tensor:
        # with the long side of both factors in a row of memory, products so thin are up to five times as fast on a
        # CPU, and autograd lays out its own alike
        h = F.linear(x, down.contiguous())
        # one fused product and sum: a product, a scaling and a sum would write three tensors of the size of y
        total = torch.addmm(y.reshape(-1, y.shape[-1]), h.reshape(-1, h.shape[-1]), up.T.contiguous(), alpha=scaling)
        return total.view(y.shape)


class SpectralConv2d(SpectralLayer):
    """A spectral adapter on `nn.Conv2d`, whose weight counts as a matrix (out, in * kh * kw)."""

    def _add_delta(self, x: Tensor, y: Tensor, up: Tensor, down: Tensor, scaling: float) -> Tensor:
        base = self.get_base_layer()
        h = base._conv_forward(x, down.reshape(-1, *base.weight.shape[1:]), None)  # keeps stride and padding mode
        return torch.add(y, F.conv2d(h, up[:, :, None, None]), alpha=scaling)


def _without_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """Turned off only where it is on: in small models a step is noticeably longer by the turning."""
    kind = tensor.device.type
    off = tensor.is_meta or not torch.is_autocast_enabled(kind)  # shapes on the meta device have none
    return nullcontext() if off else torch.autocast(kind, enabled=False)


def _full(tensor: Tensor) -> Tensor:
    return tensor.to(_wide(tensor))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _bit_sum(tensor: Tensor) -> int:
    """A checksum of the values: cheap, exact, and different after any change that matters."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return int(tensor.detach().view(integer).sum(dtype=torch.int64))
