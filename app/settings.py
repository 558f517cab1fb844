"""How the page is served, and what a visitor may do."""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from spectral_fusion.base.default import DEFAULT
from spectral_fusion.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Bounds on what a visitor sends or asks for.

    Attributes:
        uploads: files in one go.
        upload_bytes: of one file, and of one request that uploads; a concept of Stable Diffusion 1.x takes 30 MB.
        upload_total: bytes that all visitors may upload within an hour.
        body_bytes: of any other request.
        pixels: of one uploaded picture.
        edge: longest edge in pixels of a picture to make.
        steps: denoising steps of one picture.
        pictures: of one request, all cells of a grid counted.
        seconds: that one request may take; what is finished by then is kept.
        regions: boxes of one picture.
        prompt: characters of one prompt.
        tokens: of one prompt, each trigger counted with all its vectors.
        waiting: requests in line before another is refused.
        waiting_each: of one visitor.
        places: listeners that Gradio runs at once. Whoever waits for a picture through the API holds one, so there are
            more places than `waiting`.
        loads: changes of the base in line.
        away: seconds without a sign of a visitor after which his requests are cancelled. Browsers let a page that is
            not seen ask once a minute.
        trainings: in line.
        training: largest value of settings of a training that cost time or memory.
        training_hours: that one training may take.
    """

    uploads: int = 100
    upload_bytes: int = 128 * 2**20
    upload_total: int = 8 * 2**30
    body_bytes: int = 4 * 2**20
    pixels: int = 50_000_000
    edge: int = 1024
    steps: int = 150
    pictures: int = 36
    seconds: float = 900.0
    regions: int = 8
    prompt: int = 2000
    tokens: int = 1000
    waiting: int = 40
    waiting_each: int = 8
    places: int = 128
    loads: int = 4
    away: float = 90.0
    trainings: int = 8
    training: Mapping[str, float] = field(default_factory=lambda: TRAINING_BOUNDS)
    training_hours: float = 24.0

    def __post_init__(self) -> None:
        if self.waiting + self.loads >= self.places:
            raise ValueError("whoever waits holds a place: there must be more places than may wait")


TRAINING_BOUNDS: Mapping[str, float] = MappingProxyType(
    {
        "steps": 20_000,
        "rank": 128,
        "batch_size": 32,
        "gradient_accumulation": 32,
        "resolution": 1024,
        "distillation_prompts": 512,
        "num_class_images": 500,
    }
)


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
        hosts: names that browsers may reach the page by, beside its address: of a proxy before it, for one.
        hub: whether visitors may name ids of the hub, which are downloaded. None: where nobody else reaches the page.

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
    base: str = DEFAULT
    hosts: tuple[str, ...] = ()
    hub: bool | None = None
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
    def private(self) -> bool:
        """Whether only this machine reaches the page."""
        return _is_loopback(self.host) and not self.share

    @property
    def hub_allowed(self) -> bool:
        """Whether visitors may name ids of the hub."""
        return self.private if self.hub is None else self.hub

    def is_own_host(self, name: str) -> bool:
        """Whether a browser may call the page by this name, which comes without a port.

        A name that only some other site's DNS says is this machine is none. Addresses cannot be faked like that, so any
        is fine once the page listens to others.
        """
        name = name.lower().strip("[]")
        if name in {"localhost", self.host.lower(), *(host.lower() for host in self.hosts)}:
            return True
        if self.share and name.endswith(".gradio.live"):
            return True
        machine = socket.gethostname().lower()
        if not self.private and name in (machine, f"{machine}.local"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or not self.private
        except ValueError:
            return False

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders whose files a visitor may name: the library, the output and the roots."""
        return (self.library, self.out, *self.roots)

    @property
    def shown(self) -> tuple[Path, ...]:
        """Folders of the output whose files browsers are shown."""
        return (self.pictures, self.starts, self.evaluations, self.exports)

    @property
    def pictures(self) -> Path:
        """Where pictures go."""
        return self.out / "pictures"

    @property
    def starts(self) -> Path:
        """Where pictures lie that others begin from."""
        return self.out / "starts"

    @property
    def trainings(self) -> Path:
        """Where trainings go, one folder each."""
        return self.out / "trainings"

    @property
    def evaluations(self) -> Path:
        """Where evaluations go, one folder each."""
        return self.out / "evaluations"

    @property
    def exports(self) -> Path:
        """Where files lie that visitors download."""
        return self.out / "exports"

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
