"""Concepts and LoRAs are read once for many pictures, and never served when they are not there as they were."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image
from serving import make_place

from concepts import make_concept
from spectral_fusion.concept import Concept, Library, community, export_lora
from spectral_fusion.errors import InputError
from spectral_fusion.generation import GenerateConfig
from spectral_fusion_app.create.drawing import Request
from spectral_fusion_app.page import forget_calls
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.subjects import Subjects
from spectral_fusion_app.visitors import Visitor
from tiny import tiny_base

ANN = Visitor("browser", "ann")
CONFIG = GenerateConfig("a <rex> dog", num_inference_steps=1, width=32, height=32, guidance_scale=1.0, seed=5)


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    place = make_place(tmp_path)
    settings = AppSettings(library=place / "concepts", out=place / "out", base=str(place / "base"))
    settings.pictures.mkdir(parents=True)
    studio = Studio(settings)
    studio.start().wait(60)
    return studio


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, each time."""
    seen: list[str] = []
    load, lora = Concept.load, community.read_tensors

    def counted(path: Path) -> Concept:
        seen.append(Path(path).parent.name)
        return load(path)

    monkeypatch.setattr(Concept, "load", counted)
    monkeypatch.setattr(community, "read_tensors", lambda path: seen.append(path.stem) or lora(path))  # type: ignore[func-returns-value]
    return seen


def draw(studio: Studio, *names: str, loras: frozenset[str] = frozenset(), config: GenerateConfig = CONFIG) -> bytes:
    files = studio.generate(ANN, Request(config, dict.fromkeys(names, 1.0), loras=loras)).wait(60)
    return Image.open(files[0]).tobytes()


def test_two_pictures_read_a_concept_once(studio: Studio, reads: list[str]) -> None:
    first = draw(studio, "rex")
    assert draw(studio, "rex") == first
    assert reads == ["rex"]


def test_what_changed_is_read_again_and_what_is_gone_is_an_error(studio: Studio, reads: list[str]) -> None:
    first, library = draw(studio, "rex"), Library(studio.settings.library)
    library.add(make_concept(tiny_base(), "rex", seed=7, size=2.0), force=True)
    reads.clear()
    assert draw(studio, "rex") != first
    assert reads == ["rex"], "replaced"
    library.rename("rex", "max")
    with pytest.raises(InputError, match="rex"):
        draw(studio, "rex")
    draw(studio, "max")
    library.set_trigger("max", "<new>")
    draw(studio, "max", config=replace(CONFIG, prompt="a <new> dog"))
    assert reads == ["rex", "max", "max"], "renamed, and given another trigger"
    library.remove("max")
    with pytest.raises(InputError, match="max"):
        draw(studio, "max")
    library.restore("rex")
    assert draw(studio, "rex") == first, "the first one is back from the trash"


def test_a_lora_is_read_once_and_again_when_another_has_its_name(
    studio: Studio, reads: list[str], tmp_path: Path
) -> None:
    def draw_lora() -> bytes:
        return draw(studio, "style", loras=frozenset({"style"}), config=replace(CONFIG, prompt="a dog"))

    for seed, size in (1, 0.3), (2, 1.5):
        concept = make_concept(tiny_base(), "style", band=5, seed=seed, size=size)
        studio.add_lora(export_lora({concept: 1.0}, tmp_path / f"style{seed}.safetensors", "kohya"), "style")
        reads.clear()
        pictures = [draw_lora() for _ in range(2)]
        assert pictures[0] == pictures[1]
        assert reads == ["style"]
        studio.loras.remove("style")
        with pytest.raises(InputError, match="style"):
            draw_lora()
        if seed == 1:
            (studio.loras.folder / ".trash" / "style.json").unlink()


def test_only_what_was_used_last_is_kept(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_bytes(b"12345")
    seen: list[str] = []

    def ask(subjects: Subjects, file: Path) -> str:
        def read() -> str:
            seen.append(file.name)
            return file.read_text() and file.name

        return subjects.get(file, read)

    few = Subjects(most=2)
    assert [ask(few, files[n]) for n in (0, 1, 0, 2, 0, 1)] == ["a", "b", "a", "c", "a", "b"]
    assert seen == ["a", "b", "c", "b"], "b was used least when c came"
    seen.clear()
    small = Subjects(largest=12)
    [ask(small, files[n]) for n in (0, 1, 0, 2, 0, 1)]
    assert seen == ["a", "b", "c", "b"]
    seen.clear()
    none = Subjects(largest=4)
    assert [ask(none, files[0]) for _ in range(2)] == ["a", "a"]
    assert seen == ["a", "a"], "larger than all that may be kept"
    files[0].unlink()
    with pytest.raises(FileNotFoundError):
        ask(few, files[0])


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    file, subjects = tmp_path / "a", Subjects()
    file.write_bytes(b"old")

    def read() -> bytes:
        content = file.read_bytes()
        file.with_name("b").write_bytes(b"new one")
        os.replace(file.with_name("b"), file)
        return content

    assert subjects.get(file, read) == b"old"
    assert subjects.get(file, file.read_bytes) == b"new one"


def test_what_gradio_keeps_of_calls_that_are_over_is_let_go() -> None:
    with gr.Blocks() as page:
        pass
    queue = page._queue
    for session in ("over", "listening", "waiting"):
        queue.pending_event_ids_session[session] = set()
    queue.pending_event_ids_session["waiting"].add("event")
    queue.pending_messages_per_session["listening"] = asyncio.Queue()
    forget_calls(page)
    assert list(queue.pending_event_ids_session) == ["listening", "waiting"]
