"""Trains toybox: `python -m spectral_fusion.toybox.train --stage STAGE --out DIR`; STAGE may be all or pack, too."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, SchedulerMixin, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection, PreTrainedModel

from spectral_fusion.errors import InputError
from spectral_fusion.toybox.models import make_scheduler
from spectral_fusion.toybox.runner import Runner
from spectral_fusion.toybox.stages import STAGES, Stage, make_runner
from spectral_fusion.toybox.tokens import make_tokenizer

logger = logging.getLogger(__name__)

OnStep = Callable[[int, float], None]


@dataclass(frozen=True)
class Edition:
    """All that the training of one bundled base differs by from another's.

    Args:
        in_all: the stages that "all" trains, in order; all stages if empty.
        watch: makes what looks on at a stage's steps, from the stage's name and its runner.
        pack: gathers the finished stages of a folder; None for Stable Diffusion's parts.
    """

    name: str
    stages: Mapping[str, Stage]
    make_tokenizer: Callable[[], CLIPTokenizer]
    make_scheduler: Callable[[], SchedulerMixin]
    scorers: Mapping[str, type[PreTrainedModel]]
    in_all: tuple[str, ...] = ()
    watch: Callable[[str, Runner, Path], OnStep] | None = field(default=None)
    pack: Callable[[Path], Path] | None = field(default=None)


TOYBOX = Edition(
    "toybox",
    STAGES,
    make_tokenizer,
    make_scheduler,
    {"classifier": CLIPVisionModelWithProjection, "identity": CLIPVisionModelWithProjection, "text": CLIPModel},
)


def train_stage(
    name: str,
    out: Path,
    *,
    edition: Edition = TOYBOX,
    seed: int = 0,
    steps: int | None = None,
    stop: int | None = None,
    init: Path | None = None,
    compiled: bool = False,
    on_step: OnStep | None = None,
) -> None:
    """Trains one stage to its end, from its checkpoint if there is one, and writes its averaged weights to `out`.

    Args:
        stop: the step to stop at before the end; the averaged weights are written all the same.
        init: a packed folder of finished weights to begin with, where there is no checkpoint, or an autoencoder alone.
        compiled: by torch.compile, which needs a C++ compiler.
    """
    stage = edition.stages[name]
    vae = _trained_vae(out, init) if stage.needs_vae else None
    if vae is not None and compiled:
        vae.encoder.compile(dynamic=False)
    runner = make_runner(name, out, stages=edition.stages, seed=seed, steps=steps, vae=vae, compiled=compiled)
    if init is not None and runner.step == 0:
        _begin_with(runner, stage, init)
    watch = edition.watch(name, runner, out) if edition.watch else None

    def both(step: int, loss: float) -> None:
        for look in (on_step, watch):
            if look:
                look(step, loss)

    runner.run(both, stop=stop)
    save_parts(stage, runner.use_average().cpu(), out, seed)


def _begin_with(runner: Runner, stage: Stage, init: Path) -> None:
    finished = _finished(stage, init)
    if not finished and stage.needs_vae:
        logger.warning("%s holds an autoencoder only: all else begins anew", init)
        return
    # What is thrown away after training is in no packed folder: it begins anew.
    own = dict(zip(runner.names, runner.weights, strict=True))
    thrown_away = {name: weight for name, weight in own.items() if not name.startswith(tuple(stage.parts))}
    runner.begin_with({**thrown_away, **finished})


def save_parts(stage: Stage, model: nn.Module, out: Path, seed: int) -> None:
    """Finishes a trained model and writes its parts to their folders in `out`."""
    if stage.finish:
        stage.finish(model, seed)
    for prefix, folder in stage.parts.items():
        model.get_submodule(prefix.removesuffix(".")).save_pretrained(out / folder)


def _trained_vae(out: Path, init: Path | None) -> AutoencoderKL:
    """The autoencoder that the run has trained, or else the one of `init`, which becomes the run's own."""
    if not (out / "vae").exists():
        if init is None or not (init / "vae").exists():
            raise InputError(f"{out} holds no trained autoencoder; train --stage vae first, or give --init")
        AutoencoderKL.from_pretrained(init / "vae").save_pretrained(out / "vae")
    vae = AutoencoderKL.from_pretrained(out / "vae").float().eval().requires_grad_(False)
    return vae.cuda() if torch.cuda.is_available() else vae


def _finished(stage: Stage, folder: Path) -> dict[str, Tensor]:
    """The weights of one stage from a folder that `pack` wrote, named as in the stage's model."""
    weights: dict[str, Tensor] = {}
    for prefix, part in stage.parts.items():
        place = folder / part if (folder / part).exists() else folder / "scorers" / part
        for path in place.glob("*.safetensors"):
            weights |= {prefix + key: tensor for key, tensor in load_file(path).items()}
    return weights


def pack(out: Path, edition: Edition = TOYBOX) -> Path:
    """Gathers the finished stages of `out` into `out/weights`: a diffusers folder in fp16, scorers beside it."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(out / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(out / "text_encoder"),
        tokenizer=edition.make_tokenizer(),
        unet=UNet2DConditionModel.from_pretrained(out / "unet"),
        scheduler=edition.make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (pipeline.vae, pipeline.unet):
        part.register_to_config(_name_or_path=edition.name)  # where it was trained is nobody else's business
    folder = out / "weights"
    pipeline.to(torch.float16).save_pretrained(folder)
    load_as_single(folder / "text_encoder" / "config.json")
    for name, kind in edition.scorers.items():
        if (out / name).exists():
            kind.from_pretrained(out / name).half().save_pretrained(folder / "scorers" / name)
        else:
            logger.warning("no finished scorer %r in %s: run --stage %s, then pack again", name, out, name)
    return folder


def load_as_single(config: Path) -> None:
    """Half precision is for the file only: diffusers loads single precision unless asked, and so must transformers."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**settings, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")


class Printer:
    """Prints a line every so many seconds: step, smoothed loss, pictures a second."""

    def __init__(self, name: str, batch: int, every: float = 20.0) -> None:
        self.name, self.batch, self.every = name, batch, every
        self.begin = self.shown = time.monotonic()
        self.steps, self.mean = 0, math.nan

    def __call__(self, step: int, loss: float) -> None:
        self.steps += 1
        self.mean = loss if math.isnan(self.mean) else 0.98 * self.mean + 0.02 * loss
        now = time.monotonic()
        if now - self.shown > self.every:
            self.shown = now
            rate = self.steps * self.batch / (now - self.begin)
            print(f"{self.name} step {step} loss {self.mean:.4f} {rate:.1f} pictures/s", flush=True)


def command(edition: Edition) -> Callable[..., None]:
    """The command line that trains an edition."""
    order = edition.in_all or tuple(edition.stages)
    known = (*edition.stages, "all", "pack")

    def main(
        stage: Annotated[str, typer.Option(help="Which model to train; or all in order, or pack.")] = "all",
        out: Annotated[
            Path | None, typer.Option(help="Folder for checkpoints and weights; out/NAME if left out.")
        ] = None,
        seed: int = 0,
        steps: Annotated[int | None, typer.Option(help="Optimizer steps; the stage's own number by default.")] = None,
        stop: Annotated[int | None, typer.Option(help="Stop at this step and write the averaged weights.")] = None,
        init: Annotated[Path | None, typer.Option(help="Packed weights to begin with instead of random ones.")] = None,
        compiled: Annotated[bool, typer.Option("--compile", help="Use torch.compile: needs a C++ compiler.")] = False,
    ) -> None:
        logging.basicConfig(level=logging.INFO)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill saves too, as Ctrl-C does
        folder = out or Path("out") / edition.name
        if stage not in known:
            raise typer.BadParameter(f"unknown stage {stage!r}; choose one of: {', '.join(known)}")
        for name in order if stage == "all" else [stage] if stage in edition.stages else []:
            printer = Printer(name, edition.stages[name].batch)
            options = {"seed": seed, "steps": steps, "stop": stop, "init": init, "compiled": compiled}
            train_stage(name, folder, edition=edition, on_step=printer, **options)  # type: ignore[arg-type]
        if stage in ("all", "pack"):
            packed = edition.pack(folder) if edition.pack else pack(folder, edition)
            print(f"packed in {packed}")

    return main


main = command(TOYBOX)

if __name__ == "__main__":
    typer.run(main)
