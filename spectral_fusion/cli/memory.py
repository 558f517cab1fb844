"""`spectral-fusion memory`: what a training would take, without loading anything."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from spectral_fusion.cli.command import ConfigFile
from spectral_fusion.cli.forecast import PHASES, said
from spectral_fusion.cli.tables import plain_table
from spectral_fusion.cli.train import with_config_flags
from spectral_fusion.errors import InputError
from spectral_fusion.training.config import TrainConfig

if TYPE_CHECKING:
    from spectral_fusion.training.fitting import Fit
    from spectral_fusion.training.memory import Prediction

CARDS = (8, 12, 16, 24)  # GB
LARGEST = 10_000.0  # GB that anybody may ask about


@with_config_flags
def memory(
    device: Annotated[Literal["gpu", "cpu"], typer.Option(help="What trains.")] = "gpu",
    vram: Annotated[
        list[float] | None, typer.Option(help="Sizes of cards in GB to find switches for. Default: 8 12 16 24.")
    ] = None,
    beside: Annotated[bool, typer.Option("--beside", help="As trained beside other concepts of the library.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    config: ConfigFile = None,
    **given: Any,
) -> None:
    """Predict the memory that `train` would take with these flags, and the switches that make it fit."""
    from spectral_fusion.training.fitting import first_fits, fits_down, predicted
    from spectral_fusion.training.memory import GB

    chosen = {"name": "subject", "class_word": "subject"} | {k: v for k, v in given.items() if v is not None}
    settings = TrainConfig(**chosen)
    sizes = vram or ([float(size) for size in CARDS] if device == "gpu" else [])
    if bad := [size for size in sizes if not 0 < size <= LARGEST]:  # NaN is neither
        raise InputError(f"--vram {bad[0]:g} is no size of a card; give it in GB, up to {LARGEST:g}, such as --vram 12")
    found = predicted(settings, device, others=beside)
    rooms = [size * GB for size in sizes]
    found_for = first_fits(fits_down(settings, device, others=beside), rooms) if sizes else {}
    fits = {size: found_for[size * GB] for size in sizes}
    if as_json:
        typer.echo(json.dumps(_facts(found, fits), indent=2))
        return
    console = Console()
    console.print(_table(found))
    where = "on the GPU" if device == "gpu" else "in memory"
    console.print(f"\nat the most about {found.peak / GB:.1f} GB {where}, {PHASES[found.worst]}", highlight=False)
    if found.ram:
        console.print(f"and about {found.ram / GB:.1f} GB beside the GPU, while the base loads", highlight=False)
    for size, fit in fits.items():
        console.print(f"{size:g} GB: {said(fit)}", highlight=False)


def _table(found: "Prediction") -> Any:
    table = plain_table("GB", *found.phases, title="Predicted memory")
    names = dict.fromkeys(name for phase in found.phases.values() for name in phase)
    for name in names:
        table.add_row(name, *(_gb(phase.get(name)) for phase in found.phases.values()))
    table.add_row("[bold]all", *(f"[bold]{_gb(found.of(phase))}" for phase in found.phases))
    return table


def _gb(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.2f}"


def _facts(found: "Prediction", fits: dict[float, "Fit | None"]) -> dict[str, Any]:
    cards = {
        f"{size:g}": None if fit is None else {"flags": list(fit.flags), "peak": fit.prediction.peak}
        for size, fit in fits.items()
    }
    phases = {name: dict(phase) for name, phase in found.phases.items()}
    return {"peak": found.peak, "phase": found.worst, "phases": phases, "ram": found.ram, "cards": cards}
