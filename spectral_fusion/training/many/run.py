"""Tasks handed to workers, each followed by a thread; what they send is written to the library here alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, Thread
from threading import Event as Flag

from spectral_fusion.atomic import atomic_file
from spectral_fusion.concept import Concept, Library
from spectral_fusion.errors import InputError
from spectral_fusion.training.many.plan import Home, Member, has_first, task_of
from spectral_fusion.training.many.task import (
    Failed,
    Hello,
    Kept,
    Stepped,
    Stopped,
    Task,
    Trained,
    Worker,
    WorkerLost,
    check_hello,
    unpacked,
)

PREVIEW = "preview.png"
ATTEMPTS = 3  # at one round of one concept, each on another worker where there is one
RESTARTS = 3  # of a worker in one place that does not even start


@dataclass(frozen=True)
class News:
    """How a concept stands. `step` of `steps` count over all rounds; `note`: why it is tried again, or failed."""

    name: str
    state: str
    step: int = 0
    steps: int = 0
    loss: float | None = None
    worker: int | None = None
    note: str = ""


OnNews = Callable[[News], None]


class Run:
    """`Run(...)()` trains all members and returns why some could not be, by name."""

    def __init__(
        self,
        members: Sequence[Member],
        library: Library,
        wanted: Hello,
        make: Callable[[int], Worker],
        count: int,
        on_news: OnNews,
        *,
        force: bool,
    ):
        self.members = {member.name: member for member in members}
        self.library, self.wanted, self.make, self.count = library, wanted, make, count
        self.on_news, self.force = on_news, force
        self.changed = Condition()
        self.rounds = {member.name: self._rounds_done(member) for member in members}
        self.running: set[str] = set()
        self.failed: dict[str, str] = {}
        self.tried: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        self.workers: dict[int, Worker] = {}
        self.stopping = False
        self.crash: BaseException | None = None

    def __call__(self) -> dict[str, str]:
        """Raises InputError where a worker is unfit before anything is trained, and KeyboardInterrupt after a stop."""
        try:
            self._start()
            for member in self.members.values():
                self._say(member, "done" if self._is_done(member) else "waiting")
            ends = {place: Flag() for place in self.workers}
            for place, end in ends.items():
                Thread(target=self._follow, args=(place, end), daemon=True).start()
            try:
                _wait(ends.values())
            except KeyboardInterrupt:
                self._stop()
                _wait(ends.values())
                raise
        finally:
            for worker in self.workers.values():
                worker.close()
        if self.crash is not None:
            raise self.crash
        return self._reasons()

    def _start(self) -> None:
        """All workers, each of which says first what it is."""
        self.workers = {place: self.make(place) for place in range(self.count)}
        for worker in self.workers.values():
            try:
                check_hello(worker.hello(), self.wanted)
            except WorkerLost as error:
                raise InputError(f"a worker ended before it was ready: {error}; look at its own messages") from error

    def _follow(self, place: int, end: Flag) -> None:
        """Give one worker task after task, and a new process in its place where it is lost."""
        try:
            while (task := self._take(place)) is not None:
                try:
                    self._train(place, task)
                except WorkerLost as error:
                    self._give_back(task, place, str(error), final=False)
                    if not self._replace(place):
                        return
        except BaseException as error:  # such as a full disk: it ends the run, and is raised by `__call__`
            with self.changed:
                self.crash = self.crash or error
            self._stop()
        finally:
            with self.changed:
                self.changed.notify_all()
            end.set()

    def _take(self, place: int) -> Task | None:
        """The next task for a worker, waiting where others must end first; None where there will be none."""
        with self.changed:
            while not self.stopping:
                open_members = [m for m in self.members.values() if not self._is_done(m) and m.name not in self.failed]
                for member in open_members:
                    if member.name not in self.running and self._is_ready(member) and self._may(place, member):
                        self.running.add(member.name)
                        number = self.rounds[member.name]
                        self._say(member, f"round {number + 1} of {len(member.facts)}", worker=place)
                        return task_of(member, number, self.members, self.library)
                if not self.running and not any(self._is_ready(member) for member in open_members):
                    return None
                self.changed.wait(1.0)
        return None

    def _may(self, place: int, member: Member) -> bool:
        """Whether this worker may try: not the one that failed, where there is another that has not."""
        tried = self.tried[member.name, self.rounds[member.name]]
        return place not in tried or all(other in tried for other in self.workers)

    def _is_ready(self, member: Member) -> bool:
        return self.rounds[member.name] == 0 or all(self.rounds[name] > 0 for name in member.beside)

    def _train(self, place: int, task: Task) -> None:
        member = self.members[task.name]
        before = sum(settings.steps for settings in member.settings[: task.round])
        for event in self.workers[place].run(task):
            with self.changed:
                if isinstance(event, Stepped):
                    if event.samples is not None:
                        number = before + event.step
                        path = Home(self.library, task.name).folder / "samples" / f"step-{number:06d}.png"
                        _write(path, event.samples)
                    state = f"round {task.round + 1} of {len(member.facts)}"
                    self._say(member, state, step=before + event.step, loss=event.loss, worker=place)
                elif isinstance(event, Kept):
                    _write(Home(self.library, task.name).checkpoint, event.checkpoint)
                elif isinstance(event, Trained):
                    self._keep(member, task, event)
                elif isinstance(event, Stopped):
                    self.running.discard(task.name)
                    self._say(member, "stopped")
            if isinstance(event, Failed):
                self._give_back(task, place, event.reason, final=event.final)

    def _keep(self, member: Member, task: Task, trained: Trained) -> None:
        home = Home(self.library, member.name)
        if not task.last:
            _write(home.first, trained.concept)
        else:
            if trained.preview is not None:
                _write(self.library.folder(member.name) / PREVIEW, trained.preview)
            with unpacked(trained.concept) as path:
                self.library.add(Concept.load(path), force=self.force)
        home.checkpoint.unlink(missing_ok=True)
        self.rounds[member.name] += 1
        self.running.discard(member.name)
        self._say(
            member, "done" if task.last else "waiting", step=sum(s.steps for s in member.settings[: task.round + 1])
        )
        self.changed.notify_all()

    def _give_back(self, task: Task, place: int, reason: str, *, final: bool) -> None:
        with self.changed:
            if self.rounds[task.name] > task.round:
                return  # the worker was lost after its last word
            self.running.discard(task.name)
            member, tried = self.members[task.name], self.tried[task.name, task.round]
            tried.append(place)
            if final or len(tried) >= ATTEMPTS:
                self.failed[task.name] = reason
                self._say(member, "failed", note=reason)
            elif not self.stopping:
                self._say(member, "to be tried again", note=reason)
            self.changed.notify_all()

    def _replace(self, place: int) -> bool:
        """A new worker in a place; False where none will start."""
        for _ in range(RESTARTS):
            if self.stopping:
                return False
            self.workers[place].close()
            self.workers[place] = self.make(place)
            try:
                check_hello(self.workers[place].hello(), self.wanted)
                return True
            except (WorkerLost, InputError):
                continue
        with self.changed:
            self.workers.pop(place).close()
        return False

    def _stop(self) -> None:
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        for worker in list(self.workers.values()):
            worker.stop()

    def _rounds_done(self, member: Member) -> int:
        if member.done:
            return len(member.facts)
        return int(len(member.facts) > 1 and has_first(member, self.library))

    def _is_done(self, member: Member) -> bool:
        return self.rounds[member.name] == len(member.facts)

    def _reasons(self) -> dict[str, str]:
        """Why each member that is not done is not."""
        reasons = dict(self.failed)
        for member in self.members.values():
            if not self._is_done(member) and member.name not in reasons:
                missing = [name for name in member.beside if self.rounds[name] == 0]
                why = f"waits for round one of {', '.join(missing)}" if missing else "no worker was left to train it"
                reasons[member.name] = why
        return reasons

    def _say(self, member: Member, state: str, **more: object) -> None:
        done = sum(settings.steps for settings in member.settings[: self.rounds[member.name]])
        news = News(member.name, state, step=done, steps=member.config.steps)
        self.on_news(replace(news, **more))  # type: ignore[arg-type]  # fields of News


def _wait(ends: Iterable[Flag]) -> None:
    """Until all are set. Not by `Thread.join`: a Ctrl-C in it makes Python 3.11 take a living thread for ended."""
    for end in ends:
        while not end.wait(0.5):
            pass


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as part:
        part.write_bytes(content)
