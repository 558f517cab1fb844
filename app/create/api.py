"""The HTTP API: what the tabs do, as functions with names, types and descriptions (`/?view=api` in a browser)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileDataDict
from typing_extensions import NotRequired, TypedDict

from spectral_fusion.errors import InputError
from spectral_fusion_app.create.control import ControlDraft, ControlForm
from spectral_fusion_app.create.draft import Box, Draft, RegionDraft, picture_draft
from spectral_fusion_app.create.form import StartForm, to_start
from spectral_fusion_app.errors import answered
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.visitors import visitor_of

BATCH = 60


class RegionDict(TypedDict):
    """A prompt or a concept, and a box as fractions of the picture: left, top, right, bottom. No box: it is found."""

    prompt: NotRequired[str]
    box: NotRequired[Box | None]
    concept: NotRequired[str]
    mask: NotRequired[str | None]


def build(studio: Studio) -> None:
    """Add the endpoints to the page that is being made."""
    endpoints = Endpoints(studio)
    for endpoint in (endpoints.generate, endpoints.concepts, endpoints.state, endpoints.load_base, endpoints.history):
        gr.api(answered(endpoint), api_name=endpoint.__name__, concurrency_limit=None)
    gr.api(answered(endpoints.cancel), api_name="cancel", concurrency_limit=None)
    picture, settings = gr.File(visible=False), gr.JSON(visible=False)
    for taking in (endpoints.read_settings, endpoints.keep_picture):
        gr.Button(visible=False).click(
            answered(taking), picture, settings, api_name=taking.__name__, concurrency_limit=None
        )


class Endpoints:
    """The functions; their docstrings are what the page of the API says."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def generate(
        self,
        request: gr.Request,
        prompt: str,
        weights: dict[str, float] | None = None,
        regions: list[RegionDict] | None = None,
        negative_prompt: str = Draft.negative_prompt,
        sampler: str = Draft.sampler,
        steps: int = Draft.steps,
        guidance_scale: float = Draft.guidance_scale,
        width: int | None = None,
        height: int | None = None,
        seed: int | str | None = None,
        num_images: int = Draft.num_images,
        grid: dict[str, str] | None = None,
        spans: dict[str, tuple[float, float]] | None = None,
        start: StartForm | None = None,
        control: ControlForm | None = None,
        upscale: float = Draft.upscale,
        upscale_strength: float = Draft.upscale_strength,
        detail: float = Draft.detail,
        composite: float = Draft.composite,
    ) -> list[FileDataDict]:
        """Make pictures; they come in order and stay in the history.

        `weights` says how much of each concept, by name; a concept whose trigger stands in a prompt has weight 1 by
        itself. A region is {"prompt": "a <rex> dog", "box": [left, top, right, bottom]} in fractions of the picture;
        with "concept": "rex" that concept acts there alone, and without a box the model finds the place; "mask" is a
        painted place instead of a box, a PNG of at most 128 pixels a side in base64, white inside. `spans` says in
        which part of the steps a concept acts, such as {"rex": [0.2, 1]}. `start` is a picture to begin from, as
        `keep_picture` names it: {"picture": "0123456789", "strength": 0.6, "mask": ...}, where the mask says what is
        drawn anew. `control` is a picture that a ControlNet reads, kept in the same way: {"picture": "0123456789",
        "model": "models/canny", "scale": 1, "start": 0, "end": 1}. `upscale` adds a second, larger pass; `detail` one
        over the subject of each region. With `composite`, such as 0.3, each region's concept is drawn by itself, cut
        out and put there, and the ground round all is drawn again at that strength.
        `grid` varies one or two settings, such as {"weights": "0, 0.5, 1"} or {"steps": "10, 20", "sampler": "Euler,
        DPM++ 2M"}: weights (all multiplied), "weight of rex", steps, guidance, seed, sampler; a sheet of all pictures
        comes last. Without `seed` one is drawn. Returns PNG files that carry their settings.
        """
        draft = Draft(
            prompt,
            negative_prompt,
            weights=weights or {},
            pinned=tuple(weights or {}),
            regions=tuple(
                RegionDraft(region.get("prompt", ""), region.get("box"), region.get("concept", ""), region.get("mask"))
                for region in regions or []
            ),
            spans=spans or {},
            sampler=sampler,
            steps=steps,
            guidance_scale=guidance_scale,
            width=width,
            height=height,
            seed="" if seed is None else str(seed),
            num_images=num_images,
            axes=tuple((grid or {}).items()),
            start=to_start(start),
            control=ControlDraft.of_form(control),
            upscale=upscale,
            upscale_strength=upscale_strength,
            detail=detail,
            composite=composite,
        )
        self.studio.check_loaded()
        asked = draft.request(
            self.studio.drawable(), self.studio.triggers(), self.studio.starts.image, self.studio.settings.limits
        )
        job = self.studio.generate(visitor_of(request), asked)
        async for _ in self.studio.line.follow(job):
            pass
        return [_file(path) for path in job.result or []]

    def concepts(self) -> list[dict]:
        """The concepts that fit the loaded base: name, trigger, class_word, band, side, rank and mode."""
        return [
            {
                "name": info.name,
                "trigger": info.trigger,
                "class_word": info.class_word,
                "band": info.band.index,
                "side": info.band.side,
                "rank": info.band.rank,
                "mode": info.mode,
            }
            for info in self.studio.concepts()
        ]

    def state(self) -> dict[str, Any]:
        """Which base is loaded, or loading: {"kind": "loading" | "ready" | "failed", "base": ..., "message": ...}."""
        return vars(self.studio.state)

    async def load_base(self, request: gr.Request, base: str) -> dict[str, Any]:
        """Load another base for everybody: toybox, a file or folder in a root, or, where allowed, a hub id."""
        async for _ in self.studio.loads.follow(self.studio.load(visitor_of(request), base)):
            pass
        return self.state()

    def history(self, count: int = 24, skip: int = 0) -> list[FileDataDict]:
        """The newest pictures, the latest first."""
        return [_file(path) for path in self.studio.history.newest(min(max(count, 0), BATCH), max(skip, 0))]

    def read_settings(self, picture: str | None) -> dict[str, Any]:
        """The settings that a picture carries, as `generate` takes them, and its concepts as `weights`."""
        if picture is None:
            raise InputError("no picture was given; give a PNG, JPEG or WebP")
        draft = asdict(picture_draft(Path(picture)))
        draft["regions"] = [region._asdict() for region in draft["regions"]]
        draft["grid"] = dict(draft.pop("axes"))
        draft["seed"] = int(draft["seed"] or 0)
        for name in ("start", "control"):
            draft[name] = draft[name] and draft[name]._asdict()
        del draft["pinned"], draft["left_out"]  # what is left is what `generate` takes
        return draft

    def keep_picture(self, picture: str | None) -> dict[str, Any]:
        """Keep a picture for `start` or `control` of `generate`; returns {"picture": its name}, as those take it."""
        if picture is None:
            raise InputError("no picture was given; give a PNG, JPEG or WebP")
        return {"picture": self.studio.starts.keep(Path(picture))}

    def cancel(self, request: gr.Request) -> int:
        """Cancel what this client has running or waiting; returns how many requests."""
        return self.studio.cancel(visitor_of(request))


def _file(path: Path) -> FileDataDict:
    return {
        "path": str(path.resolve()),
        "orig_name": path.name,
        "is_stream": False,
        "meta": {"_type": "gradio.FileData"},
    }
