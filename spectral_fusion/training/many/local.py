"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from spectral_fusion.errors import InputError
from spectral_fusion.training.many.task import LAST, Event, Failed, Hello, Setup, Task, WorkerLost

PROCESSES = multiprocessing.get_context("spawn")
STOP, TASK = "stop", "task"
ENDING = 10.0  # seconds that a worker has to end by itself


class LocalWorker:
    """A process that holds a base. It ends with this one, however this one ends: its pipe closes."""

    def __init__(self, setup: Setup, gpu: int | None = None):
        """gpu: the number of the device that it sees; None: all, or none."""
        self.pipe, other = PROCESSES.Pipe()
        self.sending = Lock()
        self.process = PROCESSES.Process(target=serve, args=(other, setup, gpu), daemon=True)
        self.process.start()
        other.close()

    def hello(self) -> Hello:
        """What the worker is. Raises InputError where it cannot open its base, WorkerLost where it ended."""
        answer = self._receive()
        if isinstance(answer, Failed):
            raise InputError(answer.reason)
        return answer

    def run(self, task: Task) -> Iterator[Event]:
        """Have a task trained. Raises WorkerLost where the process ends on the way."""
        self._send((TASK, task))
        while True:
            event = self._receive()
            yield event
            if isinstance(event, LAST):
                return

    def stop(self) -> None:
        """Ask for an end between two steps."""
        with suppress(WorkerLost):
            self._send((STOP, None))

    def close(self) -> None:
        """End the process: at once where it does not by itself."""
        self.pipe.close()
        self.process.join(ENDING)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _send(self, message: Any) -> None:
        try:
            with self.sending:  # a stop comes from another thread than a task
                self.pipe.send(message)
        except OSError as error:
            raise WorkerLost(self._ended()) from error

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerLost(self._ended()) from error

    def _ended(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        return f"the worker process {self.process.pid} {how}"


def serve(pipe: Connection, setup: Setup, gpu: int | None) -> None:
    """The process of a worker: answers what comes through the pipe until that is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that started it, which then asks to stop
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)  # before torch is imported
    from spectral_fusion.training.many.trainer import Trainer

    trainer = Trainer(setup)
    try:
        pipe.send(trainer.hello())
        while True:
            kind, task = pipe.recv()
            if kind == TASK:
                trainer.run(task, pipe.send, lambda: _asked_to_stop(pipe))
    except InputError as error:
        pipe.send(Failed(str(error), final=True))
    except (EOFError, OSError):
        return  # nobody is there any more


def _asked_to_stop(pipe: Connection) -> bool:
    """Whether a stop has come meanwhile. A closed pipe is one too, and ends the training at once."""
    return pipe.poll() and pipe.recv()[0] == STOP
