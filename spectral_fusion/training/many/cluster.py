"""Workers on a Ray cluster. Everything goes through Ray's object store; no folder has to be shared."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from queue import Queue
from threading import Event as Flag
from threading import Thread
from typing import Any

from spectral_fusion.errors import InputError
from spectral_fusion.training.many.task import LAST, Event, Failed, Hello, Setup, Task, WorkerLost

ANSWER = 5.0  # seconds for a connection: Ray itself would try for a minute


def connect(address: str) -> None:
    """Join the Ray cluster at an address, as Ray writes it: host:port, ray://host:port, or auto.

    Raises:
        InputError: Ray is not installed, the address is malformed, or no Ray answers there.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--ray needs Ray, which is not installed; pip install 'spectral-fusion[ray]'") from None
    advice = "give the address that `ray start --head` prints, or leave out --ray"
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise InputError(f"{address!r} is no address of Ray (host:port, ray://host:port or auto); {advice}")
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER).close()
        except OSError as error:
            raise InputError(f"no Ray at {address} ({error.strerror or error}); {advice}") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"no Ray that can be used at {address} ({reason}); {advice}") from error


def devices() -> tuple[int, int]:
    """How many GPUs and processors the cluster has."""
    import ray

    found = ray.cluster_resources()
    return int(found.get("GPU", 0)), int(found.get("CPU", 0))


class RayWorker:
    """An actor that holds a base."""

    def __init__(self, setup: Setup, gpu: bool = False):
        import ray

        self.errors: type[Exception] = ray.exceptions.RayError
        # Two calls at once: a training, and the word that stops it.
        self.ray: Any = ray
        actor = self.ray.remote(Remote).options(num_cpus=1, num_gpus=int(gpu), max_concurrency=2, max_restarts=0)
        self.actor = actor.remote(setup)

    def hello(self) -> Hello:
        """What the worker is. Raises InputError where it cannot open its base, WorkerLost where it ended."""
        answer = self._get(self.actor.hello.remote())
        if isinstance(answer, Failed):
            raise InputError(answer.reason)
        return answer

    def run(self, task: Task) -> Iterator[Event]:
        """Have a task trained. Raises WorkerLost where the actor ends on the way."""
        try:
            answers = self.actor.run.options(num_returns="streaming").remote(task.packed())
            for answer in answers:
                yield self._get(answer)
        except self.errors as error:
            raise WorkerLost(_line(error)) from error

    def stop(self) -> None:
        """Ask for an end between two steps."""
        with suppress(self.errors):
            self.actor.stop.remote()

    def close(self) -> None:
        """End the actor."""
        with suppress(self.errors):
            self.ray.kill(self.actor)

    def _get(self, answer: Any) -> Any:
        try:
            return self.ray.get(answer)
        except self.errors as error:
            raise WorkerLost(_line(error)) from error


class Remote:
    """The actor's side."""

    def __init__(self, setup: Setup):
        from spectral_fusion.training.many.trainer import Trainer

        self.trainer, self.stopping = Trainer(setup), Flag()

    def hello(self) -> Hello | Failed:
        try:
            return self.trainer.hello()
        except InputError as error:
            return Failed(str(error), final=True)

    def run(self, task: Task) -> Iterator[Event]:
        events: Queue[Event] = Queue()
        thread = Thread(target=self.trainer.run, args=(task, events.put, self.stopping.is_set), daemon=True)
        thread.start()
        while True:
            event = events.get()
            yield event
            if isinstance(event, LAST):
                return

    def stop(self) -> None:
        self.stopping.set()


def _line(error: Exception) -> str:
    return f"the Ray actor is gone ({(str(error) or type(error).__name__).splitlines()[0]})"
