"""`spectral-fusion app`."""

from pathlib import Path
from typing import Annotated

import typer

from spectral_fusion.base.default import DEFAULT
from spectral_fusion.cli.select import LibraryFolder

Option = typer.Option


def app(
    port: Annotated[int | None, Option(help="Default: the first free one from 7860.")] = None,
    host: Annotated[str, Option(help="Address to listen on; another than this machine's needs --auth.")] = "127.0.0.1",
    auth: Annotated[
        str | None,
        Option(metavar="USER:PASSWORD", envvar="SPECTRAL_FUSION_AUTH", help="Ask visitors for this login."),
    ] = None,
    allow_remote: Annotated[bool, Option("--allow-remote", help="Let others in without a login.")] = False,
    share: Annotated[bool, Option("--share", help="A public link, through Gradio's servers.")] = False,
    library: LibraryFolder = None,
    base: Annotated[
        str, Option(help="toybox, toybox128, toybox-sd3, a diffusers folder, a .safetensors checkpoint or a hub id.")
    ] = DEFAULT,
    root: Annotated[list[Path] | None, Option(help="Folders that the page may read and write, beside its own.")] = None,
    allow_host: Annotated[
        list[str] | None, Option(help="Names that browsers may call the page by, of a proxy before it for one.")
    ] = None,
    hub: Annotated[
        bool | None,
        Option("--hub/--no-hub", help="Let visitors load hub ids. Default: where only this machine reaches the page."),
    ] = None,
    out: Annotated[Path, Option(help="Folder for pictures and trainings.")] = Path("out"),
) -> None:
    """Open the page in a browser: generate, train, fuse and compare."""
    import os

    from spectral_fusion_app.settings import AppSettings, parse_auth

    settings = AppSettings(
        host=host,
        port=port,
        auth=parse_auth(auth),
        allow_remote=allow_remote,
        share=share,
        library=library or Path(os.environ.get("SPECTRAL_FUSION_LIBRARY") or "concepts"),
        out=out,
        roots=tuple(root or ()),
        base=base,
        hosts=tuple(allow_host or ()),
        hub=hub,
    )
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    from spectral_fusion_app.page import launch, serve

    page = launch(settings)
    typer.echo(f"open {page.local_url} (Ctrl-C ends it)")
    serve(page)
