"""`spectral-fusion demo`."""

from pathlib import Path
from typing import Annotated

import typer

Option = typer.Option


def demo(
    out: Annotated[Path, Option(help="Folder for everything that the demo makes.")] = Path("out/demo"),
    seeds: Annotated[int, Option(help="Pictures of each prompt.")] = 3,
    compare: Annotated[bool, Option("--compare", help="Train LoRAs of the same size too: twice the time.")] = False,
    docs: Annotated[Path | None, Option(metavar="FILE.md", help="Also write the figures as Markdown.")] = None,
) -> None:
    """Train three shipped examples, fuse them, draw each alone and all together, score them: minutes on a CPU."""
    from spectral_fusion.base.default import DEFAULT
    from spectral_fusion.cli.base import open_base
    from spectral_fusion.cli.progress import status
    from spectral_fusion.demo import METHODS, run_demo, write_markdown
    from spectral_fusion.evaluate import EvaluateConfig, load_detector, load_scorers

    config = EvaluateConfig(seeds=seeds, guidance_scale=3.0)  # what miniatures of Stable Diffusion bear best
    with status("loading the base") as tell:
        base = open_base(DEFAULT)
        files = run_demo(
            out,
            base=base,
            scorers=load_scorers(base),
            detector=load_detector(base),
            methods=METHODS if compare else METHODS[:1],
            config=config,
            on_progress=tell,
        )
    for path in (files.report, files.data, files.contact_sheet):
        typer.echo(path)
    if docs is not None:
        typer.echo(write_markdown(files.evaluation, docs))
