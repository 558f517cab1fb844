"""Parameter efficiency on one subject: identity against trained numbers, the axes of the paper's Figure 6.

Each method adapts the attention projections of the bundled base's UNet, and trains the subject's token beside. VeRA is
written here as a LoRA whose matrices are frozen and shared, with a trained scale for each row: PEFT's own shares state
between layers, which diffusers cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure
from peft import LoraConfig, OFTConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spectral_fusion.adapter import SpectralConfig
from spectral_fusion.base.attach import adapter_name
from spectral_fusion.base.interface import Base, words
from spectral_fusion.base.merged import MergedWeights
from spectral_fusion.base.presets import ATTENTION
from spectral_fusion.spectral import Band, Factors, Mode
from spectral_fusion.training.config import ResolvedConfig, TrainConfig
from spectral_fusion.training.loop import Diverged
from spectral_fusion.training.model import TrainingModel
from spectral_fusion.training.single import subject_pictures, train_adapter
from study.identities import Subject
from study.judging import Jury
from theory.page import Data, Topic, paragraph

MakeConfig = Callable[[int, list[str]], PeftConfig]


@dataclass(frozen=True)
class Method:
    """One line of the figure.

    sizes: r, or OFT's block size; they span what the base's layers allow between 1,000 and a million numbers.
    rate: the learning rate that the factors of the search multiply.
    """

    title: str
    sizes: tuple[int, ...]
    rate: float
    make: MakeConfig


def _spectral(mode: Mode) -> MakeConfig:
    return lambda size, targets: SpectralConfig(r=size, mode=mode, target_modules=targets)


def _lora(size: int, targets: list[str]) -> PeftConfig:
    return LoraConfig(r=size, lora_alpha=size, target_modules=targets)


def _oft(size: int, targets: list[str]) -> PeftConfig:
    return OFTConfig(r=0, oft_block_size=size, target_modules=targets)


METHODS = {
    "embeddings": Method("token embeddings alone", (1,), 1e-3, _lora),
    "rotational": Method("rotational", (3, 8, 16, 32, 64, 96), 5e-2, _spectral("rotational")),
    "additive": Method("additive", (1, 2, 4, 8, 16, 32, 56), 5e-3, _spectral("additive")),
    "lora": Method("LoRA", (1, 2, 4, 8, 16, 32, 56), 1.5e-2, _lora),
    "oft": Method("OFT", (2, 4, 8, 16, 32, 64), 1e-2, _oft),
    "vera": Method("VeRA", (4, 64, 256, 1024), 5e-2, _lora),
}


class RowScale(nn.Module):
    """A frozen matrix with a trained scale for each row."""

    def __init__(self, rows: int, start: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((rows, 1), start))

    def forward(self, weight: Tensor) -> Tensor:
        return self.scale * weight


def make_vera(layers: list[LoraLayer], adapter: str) -> None:
    """Turn LoRAs into VeRAs: `delta = diag(b) B diag(d) A`, A and B random, frozen, and the same in all layers."""
    rank = max(layer.r[adapter] for layer in layers)
    width = max(max(layer.in_features, layer.out_features) for layer in layers)
    source = torch.Generator().manual_seed(0)
    A, B = (torch.randn(width, rank, generator=source) / rank**0.5 for _ in range(2))
    for layer in layers:
        parts = ((layer.lora_A[adapter], A[: layer.in_features].T, 0.1), (layer.lora_B[adapter], B, 0.0))
        for linear, shared, start in parts:
            linear.weight.data.copy_(shared[: len(linear.weight)])
            linear.weight.requires_grad_(False)
            parametrize.register_parametrization(linear, "weight", RowScale(len(linear.weight), start))


def tuned_layers(base: Base) -> dict[str, BaseTunerLayer]:
    return {
        f"{part}.{path}": module
        for part, model in base.parts.items()
        for path, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }


def dense_deltas(base: Base) -> dict[str, Tensor]:
    """What the adapter on the base adds to each weight, whatever its kind; the weights stay as they are."""
    found = {}
    for name, layer in tuned_layers(base).items():
        weight = layer.get_base_layer().weight
        before = weight.detach().clone()
        layer.merge()
        found[name] = weight.detach() - before
        layer.unmerge()
        weight.data.copy_(before)  # OFT divides its rotation out again, which rounds
    return found


@dataclass(frozen=True)
class Trained:
    """What a training came to. numbers: how many it set, token embeddings apart."""

    deltas: dict[str, Tensor]
    embeddings: dict[str, Tensor]
    numbers: int
    seconds: float = 0.0


def settings_of(base: Base, subject: Subject, method: str, factor: float, steps: int, seed: int) -> ResolvedConfig:
    config = TrainConfig(
        name=subject.name,
        class_word=subject.class_word,
        base=base.name or "a loaded pipeline",
        mode="rotational" if method == "rotational" else "additive",
        steps=steps,
        batch_size=4,
        distillation_prompts=0,
        target=ATTENTION,
        seed=seed,
        learning_rate_embedding=2e-3,
        learning_rate_text_encoder=0.0,
        learning_rate_unet=METHODS[method].rate * factor,
    )
    return config.resolved(base.presets(config.mode, config.preset), "fp32")


def train(base: Base, folder: Any, config: ResolvedConfig, method: str, size: int) -> Trained:
    """Train a subject with one method at one size. The base is afterwards as before."""
    adapter, counted = adapter_name(config.name), 0

    def prepare(model: TrainingModel) -> TrainingModel:
        nonlocal counted
        if method == "vera":
            make_vera([layer for layer in tuned_layers(base).values() if isinstance(layer, LoraLayer)], adapter)
        if method == "embeddings":
            for layer in tuned_layers(base).values():
                layer.requires_grad_(False)
        counted = sum(p.numel() for name, p in model.parameters.items() if not name.endswith(".rows"))
        return model

    def result(_: object) -> Trained:
        rows = {
            part: text.embedding.weight[text.token_ids(config.trigger)].detach().clone()
            for part, text in base.texts.items()
        }
        return Trained(dense_deltas(base), rows, counted)

    return train_adapter(
        base,
        [subject_pictures(base, folder, config)],
        config,
        Band(0, 1),
        None,
        result,
        adapter=lambda _config, _band, targets: METHODS[method].make(size, targets),
        prepare=prepare,
    )


def score(jury: Jury, trained: Trained, trigger: str, place: int) -> float:
    """Mean identity of the subject's pictures, drawn with what was trained in the weights."""
    deltas = {name: Factors(delta, torch.eye(delta.shape[1])) for name, delta in trained.deltas.items()}
    merged = MergedWeights(jury.base, list(deltas), deltas.__getitem__)
    with words(jury.base, {trigger: trained.embeddings}), merged.present():
        try:
            return fmean(seen.identity for seen in jury.singles([place]).seen)
        except Diverged:
            return 0.0


def best(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each method and size the rate with the highest mean over subjects: numbers, identity, factor, runs."""
    groups: dict[tuple[str, int, float], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["method"], run["size"], run["factor"]), []).append(run)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for (method, size, factor), group in groups.items():
        identity = fmean(run["identity"] for run in group)
        point = {"method": method, "size": size, "numbers": group[0]["numbers"], "identity": identity}
        point |= {"factor": factor, "subjects": len(group), "factors": 1}
        if (method, size) in found:
            point["factors"] = found[method, size]["factors"] + 1
            if found[method, size]["identity"] >= identity:
                point = found[method, size] | {"factors": point["factors"]}
        found[method, size] = point
    return sorted(found.values(), key=lambda point: (list(METHODS).index(point["method"]), point["size"]))


def shape(points: list[dict[str, Any]]) -> str:
    """What the runs say of the figure's shape: few numbers suffice a rotation, and more of them bring little."""
    asked = ("rotational", "additive", "lora")
    own = {name: [point for point in points if point["method"] == name] for name in asked}
    if any(len(found) < 3 for found in own.values()):
        return """The shape of the paper's figure cannot be judged yet: that wants three sizes of the rotational
            adapter, of the additive one and of LoRA."""
    told = [
        f"{METHODS[name].title} {found[0]['identity']:.3f} at {found[0]['numbers']:,} and "
        f"{found[-1]['identity']:.3f} at {found[-1]['numbers']:,}"
        for name, found in own.items()
    ]
    return f"""In the paper a rotation of 20,000 numbers is within 0.03 of LoRA's best, which takes over 800,000; here,
        from the fewest numbers to the most: {"; ".join(told)}."""


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    points = best(data["runs"])
    for name, method in METHODS.items():
        own = [point for point in points if point["method"] == name]
        if name == "embeddings":
            for point in own:
                axes.axhline(point["identity"], color="grey", linestyle="--", linewidth=0.8, label=method.title)
        elif own:
            xs, ys = [point["numbers"] for point in own], [point["identity"] for point in own]
            axes.plot(xs, ys, marker="o", label=method.title)
    axes.set(xscale="log", xlabel="trained numbers, token embeddings apart", ylabel="identity of the subject alone")
    if not any(point["numbers"] for point in points):  # decades that no method stands for
        axes.set_xticks([])
        axes.set_xticks([], minor=True)
    axes.legend()
    return figure


def tell(data: Data) -> str:
    runs = data["runs"]
    if not runs:
        return paragraph(
            f"""Figure 6 of the paper has image alignment of one concept against trained parameters. The study of its
            axes on toybox is written and tested. None of the {data["planned"]} planned runs has been done yet."""
        )
    lines = ["| method | size | trained numbers | identity | rates tried | subjects |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for point in best(runs):
        title = METHODS[point["method"]].title
        cells = [
            point["size"],
            f"{point['numbers']:,}",
            f"{point['identity']:.3f}",
            point["factors"],
            point["subjects"],
        ]
        lines.append(f"| {title} | " + " | ".join(str(cell) for cell in cells) + " |")
    text = f"""Figure 6 of the paper has image alignment of one concept against trained parameters. These are its axes
on toybox: {len({run["subject"] for run in runs})} drawn subject(s), {runs[0]["steps"]} steps of 4 pictures, the
attention projections of the UNet adapted, the subject's token trained beside at every size. Identity is the mean
cosine of {runs[0]["pictures"]} pictures with the subject's photos; a size is r, for OFT the side of its blocks.
Spectral bands are the first from the top, as the paper has them. {data["done"]} of the {data["planned"]} planned runs
were done. Where several rates were tried, the best on these same pictures is shown, so that a method with more rates
has an advantage; with one subject and one seed, differences below 0.05 say nothing."""
    return "\n".join([paragraph(text), "", *lines, "", paragraph(shape(best(runs)))])


TOPIC = Topic(
    "parameter-efficiency",
    "Parameter efficiency",
    "identity of one subject against trained numbers (the axes of Figure 6).",
    None,
    draw,
    tell,
)
