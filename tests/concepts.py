"""Concepts with random trained tensors, made in milliseconds from the weights of a base."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from spectral_fusion.base.attach import smallest_directions
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, LayerTensors
from spectral_fusion.concept.fingerprint import weight_fingerprint
from spectral_fusion.spectral import Band, Factors, Triplets, as_matrix, singular_triplets

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")


def make_concept(
    base: Any,
    name: str = "rex",
    *,
    band: int = 0,
    side: str = "top",
    rank: int = 4,
    mode: str = "additive",
    train_s: bool = False,
    alpha: float = 1.0,
    targets: Iterable[str] = ATTENTION,
    vectors: int = 2,
    seed: int = 0,
    size: float = 0.05,
    decompose_layer: Callable[[torch.Tensor, int, int], Triplets] = singular_triplets,
) -> Concept:
    """A concept that changes the layers ending in `targets` by random tensors of standard deviation `size`."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return size * torch.randn(*shape, generator=generator)

    weights = {key: m.weight for key, m in base.layers().items() if key.endswith(tuple(targets))}
    layers = {}
    for key, weight in weights.items():
        rows, columns = as_matrix(weight).shape
        span = Band(band, rank, side).within(min(rows, columns))
        basis = decompose_layer(weight.float(), span.start, span.stop)
        if mode == "additive":
            trained = {"A": random(rows, rank), "B": random(columns, rank)}
        else:
            trained = {"X_U": 10 * random(rank, rank), "X_V": 10 * random(rank, rank)}
        if train_s:
            trained["c"] = random(rank) + (mode == "rotational")
        layers[key] = LayerTensors(basis, trained)
    return Concept(
        name=name,
        trigger=f"<{name}>",
        class_word="dog",
        band=Band(band, rank, side),
        mode=mode,
        alpha=alpha,
        base=base.fingerprint,
        base_name="tiny",
        directions=smallest_directions(weights.values()),
        fingerprints={key: weight_fingerprint(weight) for key, weight in weights.items()},
        kernels={key: tuple(weight.shape[2:]) for key, weight in weights.items() if weight.ndim == 4},
        training={"steps": 10, "seed": seed},
        layers=layers,
        embeddings={"text_encoder": random(vectors, base.text_encoder.config.hidden_size)} if vectors else {},
        family=base.family,
        text_parts=tuple(base.texts)[: bool(vectors)],
    )


def delta(factors: Factors) -> torch.Tensor:
    return factors.up @ factors.down


def picture(base: StableDiffusion, prompt: str = "a photo of a <rex> dog") -> torch.Tensor:
    """What the base makes of a prompt in two steps, as a tensor."""
    generator = torch.Generator().manual_seed(0)
    return base.pipeline(
        prompt, num_inference_steps=2, height=32, width=32, output_type="pt", generator=generator, guidance_scale=3.0
    ).images


def weights_of(base: StableDiffusion) -> dict[str, torch.Tensor]:
    """A copy of all weights of UNet and text encoder."""
    models = {"unet": base.unet, "text_encoder": base.text_encoder}
    return {f"{c}.{k}": v.clone() for c, model in models.items() for k, v in model.state_dict().items()}


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Bit for bit, with the same keys in the same order."""
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)
