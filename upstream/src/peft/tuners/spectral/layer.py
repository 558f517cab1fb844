# Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from .config import SpectralConfig


class Triplets(NamedTuple):
    """A band of singular triplets: U (out, r), S (r,), V (in, r)."""

    U: torch.Tensor
    S: torch.Tensor
    V: torch.Tensor


def singular_band(matrix: torch.Tensor, band: int, r: int, side: str) -> Triplets:
    """
    A band of the singular triplets of a matrix (out, in), largest first. The largest entry of each left vector is
    positive, so that two machines agree.
    """
    directions = min(matrix.shape)
    if (band + 1) * r > directions:
        raise ValueError(
            f"Band {band} at rank {r} needs {(band + 1) * r} singular directions, but a weight of shape "
            f"{tuple(matrix.shape)} has {directions}. Lower `r` or `band`."
        )
    first = band * r if side == "top" else directions - (band + 1) * r
    U, S, Vh = torch.linalg.svd(matrix.to(torch.promote_types(matrix.dtype, torch.float32)), full_matrices=False)
    U, S, V = U[:, first : first + r], S[first : first + r], Vh.T[:, first : first + r]
    sign = U.gather(0, U.abs().argmax(0, keepdim=True)).sign()
    return Triplets((U * sign).contiguous(), S.contiguous(), (V * sign).contiguous())


def cayley(X: torch.Tensor) -> torch.Tensor:
    """R - I of the rotation R = (I - K)(I + K)^-1 with K = (X - X^T) / 2: exactly zero where X is."""
    K = (X - X.transpose(-1, -2)) / 2
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    return torch.linalg.solve(identity + K, -2 * K)


class SpectralLayer(BaseTunerLayer):
    """
    A frozen layer with spectral adapters: W + alpha * delta, W = U S V^T.

    additive:   delta = (U + A) diag(S + c) (V + B)^T - U diag(S) V^T
    rotational: delta = U (R_U diag(S * (1 + c)) R_V^T - diag(S)) V^T, R_U and R_V Cayley maps of X_U and X_V

    Both are multiplied out to two thin matrices in which nothing cancels: nothing of the weight's size is made in a
    step, and half precision loses no digits of a small delta.
    """

    adapter_layer_names = ("spectral_A", "spectral_B", "spectral_X_U", "spectral_X_V", "spectral_c")
    basis_names = ("spectral_U", "spectral_S", "spectral_V")
    other_param_names = ("r", "alpha", "scaling", *basis_names)

    def __init__(self, base_layer: nn.Module, **kwargs: Any) -> None:
        self.base_layer = base_layer
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict({}))
        for name in self.basis_names:
            setattr(self, name, BufferDict({}, persistent=True))
        self.r: dict[str, int] = {}
        self.alpha: dict[str, float] = {}
        self.scaling: dict[str, float] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._merged_scaling: dict[str, float] = {}
        rows, columns = self.get_base_matrix().shape
        convolution = isinstance(self.get_base_layer(), nn.Conv2d)
        self.in_features = self.get_base_layer().in_channels if convolution else columns
        self.out_features = rows

    def get_base_matrix(self) -> torch.Tensor:
        """The weight as a matrix (out, in); a convolution's (out, in * kh * kw)."""
        base = self.get_base_layer()
        return base.weight.T if isinstance(base, Conv1D) else base.weight.flatten(1)

    def update_layer(self, adapter_name: str, r: int, alpha: float, config: SpectralConfig) -> None:
        """Add an adapter; its delta is exactly zero."""
        if self.merged:
            raise ValueError(f"{self.merged_adapters} are merged into this layer; unmerge before adding an adapter.")
        matrix = self.get_base_matrix().detach()
        (rows, columns), kind = matrix.shape, {"device": matrix.device}
        kind["dtype"] = torch.promote_types(matrix.dtype, torch.float32)
        if config.init_basis and not matrix.is_meta:
            basis = singular_band(matrix, config.band, r, config.side)
        else:
            basis = Triplets(*(torch.zeros(shape, **kind) for shape in ((rows, r), (r,), (columns, r))))
        if config.mode == "additive":
            shapes = {"spectral_A": (rows, r), "spectral_B": (columns, r)}
        else:
            shapes = {"spectral_X_U": (r, r), "spectral_X_V": (r, r)}
        if config.train_s:
            shapes["spectral_c"] = (r,)
        for name, shape in shapes.items():
            getattr(self, name)[adapter_name] = nn.Parameter(torch.zeros(shape, **kind))
        for name, part in zip(self.basis_names, basis, strict=True):
            getattr(self, name)[adapter_name] = part
        self.r[adapter_name], self.alpha[adapter_name], self.scaling[adapter_name] = r, alpha, alpha
        self.reset_parameters(adapter_name, config.init_weights)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def reset_parameters(self, adapter_name: str, init_weights: bool = True) -> None:
        for name in self.adapter_layer_names:
            container = getattr(self, name)
            if adapter_name in container:
                nn.init.zeros_(container[adapter_name])
                if not init_weights:
                    nn.init.normal_(container[adapter_name], std=0.1)

    def get_factors(self, adapter_name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """up (out, k) and down (k, in) of the delta at strength one, in float32 or better."""

        def get(name: str) -> torch.Tensor | None:
            container = getattr(self, f"spectral_{name}")
            if adapter_name not in container:
                return None
            tensor = container[adapter_name]
            return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

        U, S, V, c = get("U"), get("S"), get("V"), get("c")
        with torch.autocast(U.device.type, enabled=False):
            if adapter_name in self.spectral_A:
                A, B = get("A"), get("B")
                moved, rest = V + B, B * S
                scaled = moved * (S if c is None else S + c)
                if c is not None:
                    rest = rest + moved * c
                return torch.cat([A, U], dim=1), torch.cat([scaled, rest], dim=1).T
            E_U, E_V = cayley(get("X_U")), cayley(get("X_V"))
            D = S if c is None else S * (1 + c)
            turned = E_U * D
            core = turned + D[:, None] * E_V.T + turned @ E_V.T
            if c is not None:
                core = core + torch.diag(S * c)
            return U @ core, V.T

    def get_delta_weight(self, adapter_name: str, scaling: float | None = None) -> torch.Tensor:
        """The change of the weight, in the weight's shape, at its present strength or at `scaling`."""
        up, down = self.get_factors(adapter_name)
        delta, base = up @ down * (self.scaling[adapter_name] if scaling is None else scaling), self.get_base_layer()
        return delta.T if isinstance(base, Conv1D) else delta.view(base.weight.shape)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """
        Add the active adapters, or those named, to the base weight.

        Args:
            safe_merge (`bool`): Leave the weight alone and raise where the result is not finite.
        """
        weight = self.get_base_layer().weight
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.r:
                continue
            merged = weight.data + self.get_delta_weight(name).to(weight.dtype)
            if safe_merge and not torch.isfinite(merged).all():
                raise ValueError(f"NaNs detected in the merged weights. The adapter {name} seems to be broken")
            weight.data = merged
            self._merged_scaling[name] = self.scaling[name]
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Take the merged adapters out again, at the strength at which they were merged."""
        weight = self.get_base_layer().weight
        while self.merged_adapters:
            name = self.merged_adapters.pop()
            weight.data -= self.get_delta_weight(name, self._merged_scaling.pop(name)).to(weight.dtype)

    def set_scale(self, adapter: str, scale: float) -> None:
        """Diffusers asks for these three."""
        if adapter in self.alpha:
            self.scaling[adapter] = scale * self.alpha[adapter]

    def scale_layer(self, scale: float) -> None:
        for name in self.active_adapters:
            if name in self.r:
                self.scaling[name] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        for name in self.active_adapters:
            if scale is None:
                self.set_scale(name, 1.0)
            elif name in self.r:
                self.scaling[name] /= scale

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """The device alone: a band in the base's half precision would no longer be one."""
        for name in (*self.adapter_layer_names, *self.basis_names):
            container = getattr(self, name)
            if adapter_name in container and not container[adapter_name].is_meta:
                container[adapter_name] = container[adapter_name].to(device or self.get_base_layer().weight.device)


class SpectralLinear(nn.Module, SpectralLayer):
    """Spectral adapters on `nn.Linear` and on the `Conv1D` of transformers."""

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, r: int, alpha: float, config: SpectralConfig, **kwargs: Any
    ) -> None:
        super().__init__()
        SpectralLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, alpha, config)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(x, *args, **kwargs)
        result = self.base_layer(x, *args, **kwargs)
        for name in self.active_adapters:
            if name in self.r and name not in self.merged_adapters:
                up, down = (factor.to(result.dtype) for factor in self.get_factors(name))
                result = result + self.scaling[name] * self._apply_factors(x.to(result.dtype), up, down)
        return result

    def _apply_factors(self, x: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        """What `up @ down` makes of the input, without their product."""
        # thin products are faster on a CPU where the long side of a factor lies in a row of memory
        return F.linear(x, down.contiguous()) @ up.T.contiguous()

    def __repr__(self) -> str:
        return "spectral." + super().__repr__()


class SpectralConv2d(SpectralLinear):
    """Spectral adapters on an ungrouped `nn.Conv2d`, whose weight counts as a matrix (out, in * kh * kw)."""

    def _apply_factors(self, x: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        base = self.get_base_layer()
        thin = base._conv_forward(x, down.reshape(-1, *base.weight.shape[1:]), None)
        return F.conv2d(thin, up[:, :, None, None])
