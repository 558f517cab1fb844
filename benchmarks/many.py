"""Twelve concepts on a tiny random base: one after another, on two local processes, on two Ray workers, with a kill.

    python benchmarks/many.py [--concepts 12] [--steps 20] [--without ray]

The base is the one of the tests. All runs have one processor thread a worker, and each includes the start of its
workers. The last column is a hash of all files. `docs/results/many.md` has the figures.
"""

import argparse
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil

from spectral_fusion.concept import Library
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.training import TrainConfig
from spectral_fusion.training.many.job import Where, train_many
from spectral_fusion.training.many.plan import Request
from spectral_fusion.training.many.run import News

RANK = 2


def make_requests(folder: Path, count: int, steps: int) -> list[Request]:
    from tiny import tiny_base
    from training import draw_photos

    base = folder / "base"
    tiny_base().pipeline.save_pretrained(base)
    requests = []
    for number in range(count):
        name = f"c{number}"
        config = TrainConfig(
            name=name, class_word="cat", base=str(base), rank=RANK, steps=steps, batch_size=2, checkpoint_every=5,
            distillation_prompts=4,
        )  # fmt: skip
        requests.append(Request(ImageFolder.scan(draw_photos(folder / name, 3)), config))
    return requests


def digest(library: Library, requests: list[Request]) -> str:
    """A hash of all concept files and previews."""
    found = hashlib.sha256()
    for request in requests:
        for file in (library.path(request.config.name), library.folder(request.config.name) / "preview.png"):
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def kill_one(find: Callable[[], list[int]], killed: list[int]) -> Callable[[News], None]:
    """Kills one of the processes that `find` finds, at the first step that is told of a second round: `killed`."""

    def watch(news: News) -> None:
        if news.state.startswith("round 2") and news.loss is not None and not killed:
            killed.append(find()[0])
            os.kill(killed[0], signal.SIGKILL)

    return watch


def local_workers() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def ray_workers() -> list[int]:
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "".join(child.cmdline()).startswith("ray::Remote")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--without", nargs="*", default=[], choices=("local", "kill", "ray"))
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        requests = make_requests(Path(place), asked.concepts, asked.steps)
        alone = 0.0
        print("| run | seconds | of one after another | files |\n| --- | ---: | ---: | --- |")

        def run(name: str, where: Where, watch: Callable[[News], None] = lambda news: None) -> None:
            nonlocal alone
            library = Library(Path(place) / name)
            begin = time.perf_counter()
            outcome = train_many(requests, library=library, where=where, on_news=watch)
            seconds = time.perf_counter() - begin
            alone = alone or seconds
            if outcome.failed:
                raise SystemExit(f"{name}: {outcome.failed}")
            print(f"| {name} | {seconds:.0f} | {seconds / alone:.2f} | {digest(library, requests)} |", flush=True)

        run("one after another", Where(1, threads=1))
        if "local" not in asked.without:
            run("two processes", Where(2, threads=1))
        if "kill" not in asked.without:
            run("two processes, one killed", Where(2, threads=1), kill_one(local_workers, []))
        if "ray" not in asked.without:
            import ray

            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            address = ray.get_runtime_context().gcs_address
            run("two Ray workers", Where(2, address, threads=1))
            if "kill" not in asked.without:
                run("two Ray workers, one killed", Where(2, address, threads=1), kill_one(ray_workers, []))
            ray.shutdown()


if __name__ == "__main__":
    main()
