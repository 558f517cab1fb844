"""The page: a head, and four places in it; and the server that shows it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware

from spectral_fusion.atomic import mend
from spectral_fusion_app.create import api as create_api
from spectral_fusion_app.create.desk import Desk
from spectral_fusion_app.guard import Guard
from spectral_fusion_app.lab import api as lab_api
from spectral_fusion_app.lab.desk import LabDesk
from spectral_fusion_app.lab.evaluations import Evaluator
from spectral_fusion_app.lab.fusing import Fusing
from spectral_fusion_app.library import api as library_api
from spectral_fusion_app.library.desk import LibraryDesk
from spectral_fusion_app.paths import hide
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.shell.head import Head
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.theme import THEME
from spectral_fusion_app.train import api as train_api
from spectral_fusion_app.train.begin import Begin
from spectral_fusion_app.train.desk import TrainDesk
from spectral_fusion_app.train.trainings import Trainings
from spectral_fusion_app.web import component

CSS = sorted(Path(__file__).parent.rglob("*.css"))
DESK = "shell/desk.js"
CREATE = tuple(
    f"create/{name}.js" for name in ("core", "form", "regions", "paint", "start", "control", "viewer", "queue", "main")
)
CLOSE_SECONDS = 1
KEEP_SECONDS = 86_400  # uploads in Gradio's cache
# Gradio keeps the configuration of all components for each session, a fifth of a MiB, and each call of the API is one:
# by default ten thousand of them. Nothing here is kept in them.
SESSIONS = 64

# Gradio closes the progress of an upload by a function that does nothing but warn in the browser's console.
HEAD = """<script>
const warn = console.warn;
console.warn = (...words) => words[0] === "Method not implemented." || warn.apply(console, words);
</script>
<meta name="color-scheme" content="light dark">"""


def make_page(studio: Studio, settings: AppSettings) -> gr.Blocks:
    """The page for a studio, not yet served."""
    hide(settings.folders)
    trainings = Trainings(settings.trainings, settings.library)
    trainings.longest, trainings.hours = settings.limits.trainings, settings.limits.training_hours
    studio.on_sweep.append(trainings.advance)
    begin, fusing = Begin(studio, settings, trainings), Fusing(studio, settings.fused)
    evaluator = Evaluator(studio, trainings)
    uploads = Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")
    with gr.Blocks(
        title="Spectral Fusion",
        analytics_enabled=False,
        delete_cache=(KEEP_SECONDS // 24, KEEP_SECONDS),
        fill_width=True,
    ) as page:
        create_api.build(studio)
        train_api.build(begin, trainings)
        library_api.build(studio)
        lab_api.build(fusing, evaluator)
        component("shell/head", ["shell/head.js"], Head(studio, trainings).answers(), elem_id="head")
        places = {
            "create": ("Create", CREATE, Desk(studio, uploads).answers()),
            "train": ("Train", (DESK, "train/train.js"), TrainDesk(studio, begin, trainings, uploads).answers()),
            "library": ("Library", (DESK, "library/library.js"), LibraryDesk(studio, uploads).answers()),
            "lab": ("Lab", (DESK, "lab/lab.js"), LabDesk(studio, fusing, evaluator).answers()),
        }
        with gr.Tabs(elem_id="places"):
            for name, (label, scripts, answers) in places.items():
                with gr.Tab(label, id=name, elem_id=f"tab-{name}"):
                    component(f"{name}/{name}", scripts, answers, elem_id=f"place-{name}")
    return page


def launch(settings: AppSettings) -> gr.Blocks:
    """Serve the page; returns while it is being served, `serve` waits for its end.

    Raises:
        OSError: the port is taken.
    """
    Image.MAX_IMAGE_PIXELS = settings.limits.pixels // 2  # Pillow refuses twice as many, whoever opens the file
    settings.pictures.mkdir(parents=True, exist_ok=True)
    mend_folders(settings)
    studio = Studio(settings)
    page = make_page(studio, settings)
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        auth=settings.auth,
        auth_message="Spectral Fusion: several subjects in one picture.",
        share=settings.share,
        allowed_paths=[str(folder.resolve()) for folder in settings.shown],
        max_file_size=settings.limits.upload_bytes,
        theme=THEME,
        css_paths=CSS,
        head=HEAD,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        prevent_thread_lock=True,
        quiet=True,
        max_threads=settings.limits.places,
        state_session_capacity=SESSIONS,
        app_kwargs={"middleware": [Middleware(Guard, settings=settings, presence=studio.presence)]},
    )
    page._queue.ANALYTICS_MAX_EVENTS = SESSIONS
    studio.on_sweep.append(lambda: forget_calls(page))
    page.server.config.timeout_graceful_shutdown = CLOSE_SECONDS  # a picture that is being made is not waited for
    refuse_too_few(page)
    studio.start()  # after the first page: two threads that import at once slow each other down
    return page


def mend_folders(settings: AppSettings) -> None:
    """Finish or undo what killed servers left in the folders of the page; the library mends itself."""
    runs = [settings.trainings, settings.evaluations]
    single = [folder for root in runs if root.is_dir() for folder in root.iterdir() if folder.is_dir()]
    loras = settings.library / ".loras"
    for folder in (settings.pictures, settings.starts, settings.fused, loras, loras / ".trash", *runs, *single):
        mend(folder)


def refuse_too_few(page: gr.Blocks) -> None:
    """Answer a call with too few values in a sentence: Gradio answers `null`, and logs the prompts."""
    check = page.validate_inputs

    def validate(block_fn: Any, inputs: list[Any]) -> None:
        try:
            check(block_fn, inputs)
        except ValueError:
            wanted = f"{block_fn.api_name} takes {len(block_fn.inputs)} values and got {len(inputs)}"
            raise gr.Error(f"{wanted}; the page of the API lists them", print_exception=False) from None

    page.validate_inputs = validate


def forget_calls(page: gr.Blocks) -> None:
    """Let go of the empty set that Gradio keeps of each call ever made, once it has forgotten the messages."""
    pending, messages = page._queue.pending_event_ids_session, page._queue.pending_messages_per_session
    for session in list(pending):  # a copy: the server's own thread adds to it
        if session not in messages and not pending.get(session, True):
            pending.pop(session, None)


def serve(page: gr.Blocks) -> None:
    """Until Ctrl-C. `page.block_thread` would wait for what browsers hold open; `close` tells them first."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        page.close(verbose=False)
