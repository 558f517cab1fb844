"""Benchmarks with verbs: what whoever starts one can mend is said in one line."""

from __future__ import annotations

import sys

import typer

from spectral_fusion.errors import InputError


def run(app: typer.Typer) -> None:
    """Run the verbs of a benchmark. Exits with 2 where something that was given cannot be used."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
