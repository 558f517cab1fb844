"""Trains the second edition: `python -m spectral_fusion.toybox128.train --stage STAGE --out DIR --compile`."""

from __future__ import annotations

import typer

from spectral_fusion.toybox.models import make_scheduler
from spectral_fusion.toybox.train import Edition, command
from spectral_fusion.toybox128.scorers import SCORERS
from spectral_fusion.toybox128.stages import STAGES
from spectral_fusion.toybox128.tokens import make_tokenizer
from spectral_fusion.toybox128.verdict import Verdict

TOYBOX128 = Edition(
    "toybox128",
    STAGES,
    make_tokenizer,
    make_scheduler,
    SCORERS,
    watch=Verdict,
)

main = command(TOYBOX128)

if __name__ == "__main__":
    typer.run(main)
