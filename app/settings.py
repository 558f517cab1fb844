"""How the page is served, and what a visitor may do."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from spectral_fusion.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Bounds on what a visitor sends or asks for.

    Attributes:
        uploads: files in one go.
        upload_bytes: of one file; a concept of Stable Diffusion 1.x takes 30 MB.
        pixels: of one uploaded picture.
        edge: longest edge in pixels of a picture to make.
        steps: denoising steps of one picture.
        pictures: of one request, all cells of a grid counted.
        regions: boxes of one picture.
        prompt: characters of one prompt.
        waiting: requests in line before another is refused.
    """

    uploads: int = 100
    upload_bytes: int = 128 * 2**20
    pixels: int = 50_000_000
    edge: int = 1024
    steps: int = 150
    pictures: int = 36
    regions: int = 8
    prompt: int = 2000
    waiting: int = 100


@dataclass(frozen=True)
class AppSettings:
    """Settings of one server.

    Attributes:
        host: address to listen on.
        port: None takes the first free one from 7860.
        auth: user and password, asked before anything is shown.
        allow_remote: listen on an address that others reach although nobody is asked for a password.
        share: open a public link through Gradio's servers.
        library: folder of concepts.
        out: folder for pictures and trainings.
        roots: further folders whose files visitors may name.
        base: what is loaded at the start.

    Raises:
        InputError: others could reach the page, and neither `auth` nor `allow_remote` is given.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    auth: tuple[str, str] | None = None
    allow_remote: bool = False
    share: bool = False
    library: Path = Path("concepts")
    out: Path = Path("out")
    roots: tuple[Path, ...] = ()
    base: str = "toybox"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.auth is None and not self.allow_remote and (self.share or not _is_loopback(self.host)):
            reached = "a share link" if self.share else f"address {self.host}"
            raise InputError(
                f"{reached} is open to others; give --auth user:password, or --allow-remote to let in everybody"
            )
        if self.port is not None and not 1 <= self.port <= 65535:
            raise InputError(f"port is {self.port}; give a number from 1 to 65535")

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders whose files a visitor may name: the library, the output and the roots."""
        return (self.library, self.out, *self.roots)

    @property
    def pictures(self) -> Path:
        """Where pictures go."""
        return self.out / "pictures"

    @property
    def trainings(self) -> Path:
        """Where trainings go, one folder each."""
        return self.out / "trainings"

    @property
    def evaluations(self) -> Path:
        """Where evaluations go, one folder each."""
        return self.out / "evaluations"

    @property
    def fused(self) -> Path:
        """Where fused pipelines go."""
        return self.out / "fused"


def parse_auth(text: str | None) -> tuple[str, str] | None:
    """`user:password` in its two parts; None stays None. Raises InputError."""
    if text is None:
        return None
    user, _, password = text.partition(":")
    if not user or not password:
        raise InputError("the login has no user or no password; write --auth user:password")
    return user, password


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
