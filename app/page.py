"""The page: a header with the base, a tab for each thing to do; and the server that shows it."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware

from spectral_fusion_app import api, concepts_tab, fuse_tab, generate_tab, train_tab
from spectral_fusion_app.errors import shown
from spectral_fusion_app.guard import Guard
from spectral_fusion_app.links import Links
from spectral_fusion_app.quiet import QUIET
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.studio import Studio, device_and_memory
from spectral_fusion_app.visitors import visitor_of

CSS = sorted(Path(__file__).parent.glob("*.css"))
THEME = gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    spacing_size="sm",
    radius_size="md",
    font=["system-ui", "sans-serif"],  # the visitor's own: nothing is fetched
    font_mono=["ui-monospace", "monospace"],
)
LOOK_SECONDS, LOOK_WHILE_LOADING_SECONDS = 5.0, 0.5
CLOSE_SECONDS = 1
KEEP_SECONDS = 86_400  # uploads and previews in Gradio's cache

Build = Callable[[Studio, AppSettings, Links], None]
TABS: dict[str, tuple[str, Build]] = {
    "generate": ("Generate", generate_tab.build),
    "train": ("Train", train_tab.build),
    "concepts": ("Concepts", concepts_tab.build),
    "fuse": ("Fuse and compare", fuse_tab.build),
}

# Gradio closes the progress of an upload by a function that does nothing but warn in the browser's console.
HEAD = """<script>
const warn = console.warn;
console.warn = (...words) => words[0] === "Method not implemented." || warn.apply(console, words);
</script>"""


def make_page(studio: Studio, settings: AppSettings) -> gr.Blocks:
    """The page for a studio, not yet served."""
    with gr.Blocks(
        title="Spectral Fusion",
        analytics_enabled=False,
        delete_cache=(KEEP_SECONDS // 24, KEEP_SECONDS),
        fill_width=True,
    ) as page:
        api.build(studio)  # first: a listener of the same name would take it, though it is not public
        links = Links()
        Header(studio, links).connect(page)
        links.tabs.render()
        with links.tabs:
            for name, (label, build) in TABS.items():
                with gr.Tab(label, id=name, elem_id=f"tab-{name}"):
                    build(studio, settings, links)
    return page


class Header:
    """Which base is loaded, on what device, with how much memory; and the choice of another."""

    def __init__(self, studio: Studio, links: Links) -> None:
        self.studio, self.links = studio, links
        self.seen = gr.State("")
        self.timer = gr.Timer(LOOK_WHILE_LOADING_SECONDS)
        with gr.Row(elem_id="header", equal_height=True):
            self.status = gr.HTML(self.describe(), elem_id="status", padding=False)
            self.base = gr.Dropdown(
                studio.bases(),
                value=studio.settings.base,
                allow_custom_value=True,
                show_label=False,
                container=False,
                scale=0,
                min_width=220,
                elem_id="base",
            )
            self.load = gr.Button("Load base", size="sm", scale=0, min_width=100, elem_id="load-base")

    def connect(self, page: gr.Blocks) -> None:
        """Attach the listeners."""
        looks = [self.seen, self.status, self.links.base, self.timer]
        for event in (page.load, self.timer.tick):
            event(self.look, self.seen, looks, **QUIET)
        self.load.click(shown(self.change), self.base, None, concurrency_limit=None, api_visibility="private")

    def describe(self) -> str:
        """The state as HTML; a base's name is what a visitor wrote."""
        state = self.studio.state
        parts = [f"<b>{html.escape(Path(state.base).name)}</b>", state.kind]
        if state.kind == "ready":
            parts.append(html.escape(device_and_memory()))
        if state.next:
            parts.append(f"loading {html.escape(Path(state.next).name)}")
        if state.kind == "failed":
            parts.append(html.escape(state.message))
        return f'<span class="state {state.kind}" role="status">{" · ".join(parts)}</span>'

    def look(self, seen: str) -> tuple[Any, Any, Any, Any]:
        """Tell the page about the base, and the tabs when it is another one than they have seen."""
        state, current = self.studio.state, self.studio.fingerprint
        status = self.describe()
        timer = gr.Timer(LOOK_WHILE_LOADING_SECONDS if state.kind == "loading" else LOOK_SECONDS)
        if state.kind == "ready" and current != seen:
            return current, status, self.links.news(state.base), timer
        return gr.skip(), status, gr.skip(), timer

    async def change(self, request: gr.Request, base: str) -> None:
        """Load another base, and wait for it, so that a failure is told to whoever chose it."""
        async for _ in self.studio.loads.follow(self.studio.load(visitor_of(request), base or "")):
            pass


def launch(settings: AppSettings) -> gr.Blocks:
    """Serve the page; returns while it is being served, `serve` waits for its end.

    Raises:
        OSError: the port is taken.
    """
    Image.MAX_IMAGE_PIXELS = settings.limits.pixels // 2  # Pillow refuses twice as many, whoever opens the file
    settings.pictures.mkdir(parents=True, exist_ok=True)
    studio = Studio(settings)
    page = make_page(studio, settings)
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        auth=settings.auth,
        share=settings.share,
        allowed_paths=[str(folder.resolve()) for folder in (settings.pictures, settings.evaluations)],
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
        app_kwargs={"middleware": [Middleware(Guard, settings=settings, presence=studio.presence)]},
    )
    page.server.config.timeout_graceful_shutdown = CLOSE_SECONDS  # a picture that is being made is not waited for
    studio.start()  # after the first page: two threads that import at once slow each other down
    return page


def serve(page: gr.Blocks) -> None:
    """Until Ctrl-C. `page.block_thread` would wait for what browsers hold open; `close` tells them first."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        page.close(verbose=False)
