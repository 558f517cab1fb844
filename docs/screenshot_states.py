"""Brings each place of the page into each of its states, as a visitor would, for docs/screenshots.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page

PLACES = ("create", "train", "library", "lab")
STATES = ("empty", "first", "busy", "done", "error")
"""In the order in which one server goes through them; `empty` has a server of its own, without concepts."""
TOGETHER = ("rex", "tom", "kit")
LONG = 1_800_000  # ms: trainings and comparisons on a machine with other work
REHEARSED = 8  # pictures that the base draws before a training: a few, for it is the page that is shown


@dataclass(frozen=True)
class Visitor:
    """One visit.

    library: the folder of concepts; the server's own copy.
    train_steps, compare_steps: of the training and the comparison that are waited for.
    """

    page: Page
    library: Path
    train_steps: int
    compare_steps: int

    def go(self, place: str) -> None:
        """Show a place."""
        self.page.click(f"#tab-{place}-button")

    def fill(self, **values: object) -> None:
        """Write into fields, by their ids with underscores."""
        for name, value in values.items():
            self.page.fill(f"#{name.replace('_', '-')}", str(value))

    # Create

    def create_empty(self) -> None:
        self.page.wait_for_selector(".form .chips .hint")

    def create_first(self) -> None:
        self.page.wait_for_selector(".welcome:not([hidden])")

    def create_busy(self) -> None:
        self._together()
        self.fill(f_steps=150, f_pictures=36)
        self.page.click("#generate")
        self.page.wait_for_selector(".frame img[src^='data:']")
        self.page.locator("#queue").evaluate("node => node.open = true")

    def create_done(self) -> None:
        self._together()
        self.fill(f_steps=25, f_pictures=1, f_seed=1)
        newest = "(document.querySelector('.strip [role=option]')?.dataset.name ?? '')"
        before = self.page.evaluate(newest)
        self.page.click("#generate")
        self.page.wait_for_function(f"{newest} !== '{before}'", timeout=LONG)
        self._idle()
        self.page.locator("#made").evaluate("node => node.open = true")
        self.page.wait_for_selector("#made dd")

    def create_error(self) -> None:
        self.page.locator("[data-do=clear-form]").evaluate("node => node.click()")
        self.fill(f_prompt="a <rexx> dog and a <tom> cat on the beach", f_seed=1)
        self.page.click("#generate")
        self.page.wait_for_function("document.querySelector('#e-prompt').textContent")

    def _together(self) -> None:
        """Two subjects, a region each."""
        self.page.locator("[data-do=clear-form]").evaluate("node => node.click()")
        self.fill(f_prompt="a photo of a <eve> woman and a <kit> cat on grass")
        for name in ("eve", "kit"):
            self.page.wait_for_selector(f"#weight-{name}")
            self.page.click("#add-region")

    def _idle(self) -> None:
        self.page.wait_for_function("document.querySelector('#cancel').disabled", timeout=LONG)

    # Train

    def train_first(self) -> None:
        photos = sorted((self.library / "rex" / "images").glob("??.png"))[:6]
        self.page.set_input_files("#train-files", photos)
        self.page.locator(".photo").nth(len(photos) - 1).wait_for()

    def train_busy(self) -> None:
        self._train("max", steps=20_000, sample_every=10)
        self.page.locator("#training-samples img").first.wait_for(timeout=LONG)

    def train_done(self) -> None:
        self._train("leo", steps=self.train_steps, sample_every=max(5, self.train_steps // 4))
        self.page.wait_for_selector("#training-state[data-kind=finished]", timeout=LONG)
        self.page.wait_for_selector("#open-trained:not([hidden])")

    def train_error(self) -> None:
        broken = self.library.parent / "holiday.jpg"
        broken.write_bytes(b"no picture")
        self.page.set_input_files("#train-files", broken)
        self.page.wait_for_function("document.querySelector('.train [data-problem=photos]').textContent")
        self.train_first()
        self.fill(train_name="rex", train_class="dog")
        self.page.click("#start-training")
        self.page.wait_for_function("document.querySelector('.train [data-field=name] .problem').textContent")

    def _train(self, name: str, **settings: int) -> None:
        self.train_first()
        self.fill(train_name=name, train_class="dog")
        self.page.locator("#train-advanced").evaluate("node => node.open = true")
        for setting, value in (settings | {"distillation_prompts": REHEARSED}).items():
            self.page.fill(f"#train-{setting.replace('_', '-')}", str(value))
        self.page.locator("#train-advanced").evaluate("node => node.open = false")
        self.page.click("#start-training")
        self.page.wait_for_function(
            f"document.querySelector('#training-state').textContent.includes('{name}')", timeout=LONG
        )

    # Library

    def library_empty(self) -> None:
        self.page.wait_for_selector(".library .empty:not([hidden])")

    def library_first(self) -> None:
        self.page.wait_for_selector("#shelf [data-name=rex]")

    def library_busy(self) -> None:
        self.fill(library_search="cat")
        self.page.wait_for_function("document.querySelectorAll('#shelf .concept').length < 4")

    def library_done(self) -> None:
        self.fill(library_search="")
        self.page.click("#shelf [data-name=rex]")
        self.page.wait_for_selector("#concept:not([hidden]) .facts dd")
        self.page.click("#export-concept")
        self.page.locator("#exported a").first.wait_for()

    def library_error(self) -> None:
        broken = self.library.parent / "holiday.safetensors"
        broken.write_bytes(b"no concept")
        self.page.set_input_files("#import-file", broken)
        self.page.wait_for_function("document.querySelector('[data-problem=import]').textContent")

    # Lab

    def lab_empty(self) -> None:
        self.page.wait_for_selector(".choose .empty:not([hidden])")

    def lab_first(self) -> None:
        self.page.wait_for_selector("#fuse-rex")

    def lab_busy(self) -> None:
        self._choose()
        self.fill(evaluate_seeds=10, evaluate_steps=100)
        self.page.click("#evaluate")
        self.page.locator("#evaluations li").first.wait_for()
        drawing = "/alone|plain/.test(document.querySelector('#evaluations').textContent)"
        self.page.wait_for_function(drawing, timeout=LONG)

    def lab_done(self) -> None:
        self._choose()
        self.fill(evaluate_seeds=1, evaluate_steps=self.compare_steps)
        self.page.click("#evaluate")
        self.page.frame_locator("#report iframe").locator("img").first.wait_for(timeout=LONG)

    def lab_error(self) -> None:
        self._choose()
        self.fill(fuse_name="../fused")
        self.page.click("#save-folder")
        self.page.wait_for_function("document.querySelector('.lab [data-field=folder] .problem').textContent")

    def _choose(self) -> None:
        for name in TOGETHER:
            if self.page.get_attribute(f"#fuse-{name}", "aria-pressed") != "true":
                self.page.click(f"#fuse-{name}")
        self.page.wait_for_selector("#fuse-check table")

    # What is left behind

    def calm(self, place: str) -> None:
        """Stop what the state began."""
        stop = {"create": "#cancel", "train": "#cancel-training", "lab": "#evaluations button"}.get(place)
        button = self.page.locator(stop).filter(visible=True) if stop else None
        if button is not None and button.count() and button.first.is_enabled():
            button.first.click()
            self.page.wait_for_timeout(2000)


def way_to(visitor: Visitor, place: str, state: str) -> Callable[[], None]:
    """What brings a place into a state; an empty Train is there from the first."""
    return getattr(visitor, f"{place}_{state}", lambda: None)
