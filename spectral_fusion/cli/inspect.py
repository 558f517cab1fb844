"""`spectral-fusion inspect`."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from spectral_fusion.cli.select import LibraryFolder, select_concepts
from spectral_fusion.cli.tables import plain_table, size

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
    facts, energies = describe(loaded), layer_energies(loaded)
    if as_json:
        typer.echo(json.dumps(facts | {"training": loaded.training, "layers": energies}, indent=2))
        return
    console = Console()
    table = plain_table("", "", title=f"Concept {loaded.name}")
    table.show_header = False
    for key, value in facts.items():
        table.add_row(f"[dim]{key.replace('_', ' ')}", size(value) if key == "bytes" else escape(str(value)))
    console.print(table)
    console.print()
    console.print(_energy_table(energies, len(energies) if layers else SHOWN_LAYERS))
    if len(energies) > SHOWN_LAYERS and not layers:
        console.print(f"[dim]… and {len(energies) - SHOWN_LAYERS} weaker layers; --layers lists them all")


def describe(concept: "Concept") -> dict[str, Any]:
    """The facts about a concept, in the order of the table."""
    tensors = [tensor for layer in concept.layers.values() for tensor in layer.tensors().values()]
    trained = [tensor for layer in concept.layers.values() for tensor in layer.trained.values()]
    return {
        "trigger": concept.trigger,
        "class_word": concept.class_word,
        "token_vectors": len(concept.embeddings),
        "base": f"{concept.base_name} {concept.base}".strip(),
        "band": concept.band.index,
        "rank": concept.band.rank,
        "singular_directions": f"{concept.band.lo} to {concept.band.hi - 1} of {concept.directions}",
        "bands_of_this_rank": concept.capacity,
        "mode": concept.mode,
        "alpha": concept.alpha,
        "adapted_layers": len(concept.layers),
        "trained_parameters": sum(tensor.numel() for tensor in trained) + concept.embeddings.numel(),
        "stored_numbers": sum(tensor.numel() for tensor in tensors) + concept.embeddings.numel(),
    }


def layer_energies(concept: "Concept") -> dict[str, dict[str, float]]:
    """For each layer, strongest first: the norm of the delta, that of the band it moves, and the share of all energy."""
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
    table = plain_table("layer", "delta", "of the band", "energy", "", title="Where the delta is")
    most = max((energy["energy_share"] for energy in energies.values()), default=0) or 1.0
    for name, energy in list(energies.items())[:rows]:
        relative = energy["delta_norm"] / energy["band_norm"] if energy["band_norm"] else 0.0
        bar = "█" * round(16 * energy["energy_share"] / most)
        table.add_row(name, f"{energy['delta_norm']:.3g}", f"{relative:.1%}", f"{energy['energy_share']:.1%}", bar)
    return table
