"""The job: many folders of pictures in, as many concepts in the library out, each as if trained one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch

from spectral_fusion.base.load import open_base
from spectral_fusion.concept import Library
from spectral_fusion.concept.metadata import library_versions
from spectral_fusion.errors import InputError
from spectral_fusion.training.folder import TrainingFolder
from spectral_fusion.training.many import cluster
from spectral_fusion.training.many.local import LocalWorker
from spectral_fusion.training.many.plan import Home, Member, Request, check_names, is_finished, make_plan
from spectral_fusion.training.many.run import OnNews, Run
from spectral_fusion.training.many.task import Hello, Setup, Worker


@dataclass(frozen=True)
class Where:
    """Where to train.

    workers: None: one for each GPU, or one.
    ray: the address of a cluster; None: processes of this machine.
    threads: of the processor, for each worker; None: as many as torch takes by itself.
    """

    workers: int | None = None
    ray: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Outcome:
    """Names of the concepts that the library has now, and why the others are not in it."""

    done: list[str]
    failed: dict[str, str] = field(default_factory=dict)


def train_many(
    requests: Sequence[Request],
    *,
    library: Library,
    where: Where = Where(),
    force: bool = False,
    on_news: OnNews = lambda news: None,
) -> Outcome:
    """Train several concepts for one another, in two rounds as `training.together`, and put them into the library.

    The same requests give the same files with any number of workers, after any interruption: a second call goes on
    where the first one stopped. Only this process writes to the library.

    Args:
        on_news: called from several threads, one at a time.

    Raises:
        InputError: something that was given cannot be used; nothing has been trained then.
    """
    check_names(requests)
    setup = _setup(requests, where)
    check_writable(library)
    make, count = _workers(setup, where)
    with _locked(library, requests):
        base = open_base(setup.base, prediction_type=requests[0].config.prediction_type)
        members = make_plan(requests, base, library, force=force)
        wanted = Hello("this machine", library_versions(), base.fingerprint)
        del base  # the workers have their own
        if all(member.done for member in members):
            _tidy(members, library)
            return _outcome(members, library, {})
        run = Run(members, library, wanted, make, min(count, len(members)), on_news, force=force)
        try:
            failed = run()
        finally:
            _tidy(members, library)
        return _outcome(members, library, failed)


def check_writable(library: Library) -> None:
    """Raises InputError where the library's folder cannot be made or written."""
    try:
        library.root.mkdir(parents=True, exist_ok=True)
        probe = library.root / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"the library {library.root} cannot be written ({error.strerror or error}); give another --library"
        ) from None


def _setup(requests: Sequence[Request], where: Where) -> Setup:
    configs = [request.config for request in requests]
    for name in ("base", "prediction_type", "low_memory", "quantize"):
        values = {getattr(config, name) for config in configs}
        if len(values) > 1:
            raise InputError(f"one run has one {name}, not {' and '.join(map(str, values))}; run train-many for each")
    first = configs[0]
    if first.quantize is not None:
        raise InputError("train-many does not quantise bases; leave out quantize, or run train for each")
    if any(config.offload_blocks for config in configs):
        raise InputError("train-many holds a whole base; leave out offload_blocks, or run train for each")
    return Setup(first.base, first.prediction_type, first.low_memory, where.threads or torch.get_num_threads())


def _workers(setup: Setup, where: Where) -> tuple[Callable[[int], Worker], int]:
    """What makes the worker of a place, and how many there are."""
    if where.ray is not None:
        cluster.connect(where.ray)
        gpus, processors = cluster.devices()
        count = where.workers or gpus or 1
        if not gpus and count > processors:
            raise InputError(f"the cluster has {processors} processors for {count} workers; give fewer --workers")
        return lambda place: cluster.RayWorker(setup, gpu=gpus > 0), count
    gpus = torch.cuda.device_count()
    return lambda place: LocalWorker(setup, place % gpus if gpus else None), where.workers or gpus or 1


@contextmanager
def _locked(library: Library, requests: Sequence[Request]) -> Iterator[None]:
    with ExitStack() as locks:
        for request in requests:
            locks.enter_context(TrainingFolder(library, request.config.name, {}).locked())
        yield


def _tidy(members: Sequence[Member], library: Library) -> None:
    """Drop what only a run that goes on would need; a claim stays with what a second start goes on from."""
    all_done = all(is_finished(member, library) for member in members)
    for member in members:
        home = Home(library, member.name)
        if all_done:
            home.clear()
            if home.folder.is_dir() and not any(home.folder.iterdir()):
                home.folder.rmdir()
        elif not home.checkpoint.exists() and not home.first.exists():
            library.release(member.name)


def _outcome(members: Sequence[Member], library: Library, failed: dict[str, str]) -> Outcome:
    return Outcome([member.name for member in members if is_finished(member, library)], failed)
