"""`spectral-fusion inspect`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from spectral_fusion.cli.select import LibraryFolder, concept_path, select_concepts
from spectral_fusion.cli.tables import plain_table, size, wide_console

if TYPE_CHECKING:
    from spectral_fusion.concept import Concept

SHOWN_LAYERS = 12


def inspect(
    concept: Annotated[str, typer.Argument(help="A concept file, its folder, or a name of the library.")],
    library: LibraryFolder = None,
    layers: Annotated[bool, typer.Option("--layers", help="List every adapted layer, not only the strongest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what a concept file is: base, band, trigger, sizes, and where its delta is strong."""
    (loaded,) = select_concepts([concept], library=library)
    facts, energies = describe(loaded, concept_path(concept, library)), layer_energies(loaded)
    if as_json:
        typer.echo(json.dumps(facts | {"training": loaded.training, "layers": energies}, indent=2))
        return
    console = wide_console()
    table = plain_table("", "", title=f"Concept {loaded.name}")
    table.show_header = False
    for key, value in facts.items():
        shown = size(value) if key == "bytes" else escape(str(value))
        table.add_row(f"[dim]{'size' if key == 'bytes' else key.replace('_', ' ')}", shown)
    console.print(table)
    console.print()
    console.print(_energy_table(energies, len(energies) if layers else SHOWN_LAYERS))
    if len(energies) > SHOWN_LAYERS and not layers:
        console.print(f"[dim]… and {len(energies) - SHOWN_LAYERS} weaker layers; --layers lists them all")


def describe(concept: "Concept", path: Path) -> dict[str, Any]:
    """The facts about a concept and its file, in the order of the table."""
    trained = [tensor for layer in concept.layers.values() for tensor in layer.trained.values()]
    return {
        "file": str(path),
        "trigger": concept.trigger,
        "class_word": concept.class_word,
        "token_vectors": max(map(len, concept.embeddings.values()), default=0),
        "family": concept.family,
        "base": f"{concept.base_name} {concept.base}".strip(),
        "band": concept.band.index,
        "side": concept.band.side,
        "rank": concept.band.rank,
        "singular_directions": f"{concept.span.start} to {concept.span.stop - 1} of {concept.directions}",
        "bands_of_this_rank": concept.capacity,
        "mode": concept.mode,
        "alpha": concept.alpha,
        "adapted_layers": len(concept.layers),
        "trained_parameters": sum(tensor.numel() for tensor in trained)
        + sum(rows.numel() for rows in concept.embeddings.values()),
        "bytes": path.stat().st_size,
    }


def layer_energies(concept: "Concept") -> dict[str, dict[str, float]]:
    """For each layer, strongest first: norms of the delta and of the band it moves, and the share of all energy."""
    from spectral_fusion.spectral import delta_norm

    norms = {name: delta_norm(concept.factors(name)) for name in concept.layers}
    total = sum(norm**2 for norm in norms.values()) or 1.0
    return {
        name: {
            "delta_norm": norms[name],
            "band_norm": float(concept.layers[name].basis.S.norm()),
            "energy_share": norms[name] ** 2 / total,
        }
        for name in sorted(norms, key=norms.__getitem__, reverse=True)
    }


def _energy_table(energies: dict[str, dict[str, float]], rows: int) -> Any:
    table = plain_table("energy", "", "delta", "of the band", "layer", title="Where the delta is")
    most = max((energy["energy_share"] for energy in energies.values()), default=0) or 1.0
    for name, energy in list(energies.items())[:rows]:
        relative = energy["delta_norm"] / energy["band_norm"] if energy["band_norm"] else 0.0
        bar = "█" * round(8 * energy["energy_share"] / most)
        table.add_row(f"{energy['energy_share']:.1%}", bar, f"{energy['delta_norm']:.3g}", f"{relative:.0%}", name)
    return table
