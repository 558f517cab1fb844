"""Settings files, libraries and exports from the command line, at any width of the terminal."""

import json
import os
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from concepts import make_concept
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.cli import Group, app, start
from spectral_fusion.cli.command import Command, ConfigFile
from spectral_fusion.concept import Library


def probe(
    class_word: Annotated[str, typer.Option("--class")] = "",
    guidance_scale: Annotated[float, typer.Option("--guidance-scale", "--cfg-scale")] = 5.0,
    steps: int = 25,
    flip: bool = False,
    names: Annotated[list[str] | None, typer.Option()] = None,
    config: ConfigFile = None,
) -> None:
    """Says what it was given."""
    typer.echo(json.dumps([class_word, guidance_scale, steps, flip, names]))


def given(folder: Path, text: str) -> tuple[int, str]:
    (folder / "s.toml").write_text(text, encoding="utf-8")
    verbs = typer.Typer(cls=Group, callback=start, pretty_exceptions_enable=False)
    verbs.command("probe", cls=Command)(probe)
    verbs.command("other")(lambda: None)
    result = CliRunner().invoke(verbs, ["probe", "--config", str(folder / "s.toml")])
    return result.exit_code, result.stdout or result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('class = "dog"', ["dog", 5.0, 25, False, None]),
        ('class_word = "dog"', ["dog", 5.0, 25, False, None]),
        ("cfg-scale = 3", ["", 3.0, 25, False, None]),
        ("guidance_scale = 3.5\nsteps = 4", ["", 3.5, 4, False, None]),
        ('flip = true\nnames = ["a", "b"]', ["", 5.0, 25, True, ["a", "b"]]),
        ("class = 7", ["7", 5.0, 25, False, None]),
    ],
)
def test_keys_are_as_the_flags_are_named(tmp_path: Path, text: str, expected: list) -> None:
    code, said = given(tmp_path, text)
    assert code == 0, said
    assert json.loads(said) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps = true", "steps = True; give a whole number"),
        ("steps = 4.5", "give a whole number"),
        ('steps = "4"', "give a whole number"),
        ("cfg-scale = false", "give a number"),
        ("flip = 1", "give true or false"),
        ('flip = "yes"', "give true or false"),
        ("class = true", "give text in quotes"),
        ("class = [1]", "give text in quotes"),
        ("names = [true]", "give text in quotes"),
        ("[steps]\na = 1", "give a whole number"),
        ("cfg-scale = 3\nguidance-scale = 4", "twice, by two names"),
        ("steps = " + "9" * 5000, "not valid TOML"),
        ("names = " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("x = 1 # " + "x" * 70_000, "larger than 64 KiB"),
        ("steps = 4 # \x00", "control character"),
        ('class = "a\\u0000b"', "holds the character NUL"),
        ('names = ["a", "\\U00000000"]', "holds the character NUL"),
    ],
)
def test_values_have_the_type_of_the_flag(tmp_path: Path, text: str, words: str) -> None:
    code, said = given(tmp_path, text)
    assert code == 2
    assert words in said


@pytest.fixture
def library(shared_base: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.chdir(tmp_path)
    found = Library("concepts")
    found.add(make_concept(shared_base, "rex"))
    found.add(make_concept(shared_base, "tom", band=1))
    return found


def run(*args: str, width: int = 80) -> str:
    result = CliRunner(env={"COLUMNS": str(width)}).invoke(app, list(args))
    assert result.exit_code in (0, 1), result.stderr
    return result.stdout


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_path_or_name_is_broken_across_lines(library: Library, tmp_path: Path, width: int) -> None:
    deep = tmp_path / ("a folder with a long name " * 4).strip() / "concept.safetensors"
    library.get("rex").save(deep)
    assert str(deep) in run("inspect", str(deep), width=width)
    layer = max(library.get("rex").layers, key=len)
    assert layer in run("inspect", "rex", "--layers", width=width)
    (library.root / "broken").mkdir()
    file = library.root / "broken" / "concept.safetensors"
    file.write_bytes(b"x")
    assert f"cannot be used: broken: {file} (1 bytes)" in run("concepts", width=width)
    assert f"No concepts in {tmp_path / 'none'} yet." in run(
        "concepts", "--library", str(tmp_path / "none"), width=width
    )


def test_trash_and_restore(library: Library) -> None:
    run("concepts", "remove", "rex")
    (entry,) = json.loads(run("concepts", "trash", "--json"))
    assert entry["at"] in run("concepts", "trash")
    assert "restored rex" in run("concepts", "restore", "rex", "--at", entry["at"])
    assert "the trash is empty" in run("concepts", "trash")


def test_check_and_rename(library: Library) -> None:
    assert run("concepts", "check") == "all is well\n"
    (library.root / ".tom.abcdefgh.part").mkdir()
    assert "mended" in run("concepts", "check")
    assert "max" in run("concepts", "rename", "rex", "max")
    assert json.loads(run("concepts", "check", "--json")) == []
    assert json.loads(run("concepts", "show", "max", "--json"))["trigger"] == "<rex>"


def test_the_undo_line_of_remove_names_the_library(library: Library) -> None:
    assert "restore rex --library concepts" in run("concepts", "--library", "concepts", "remove", "rex")


def test_export_advises_the_naming_that_other_programs_read(library: Library) -> None:
    assert "kohya" in run("export", "--help", width=200)
    line = run("export", "rex", "--to", "diffusers", "--out", "a.safetensors")
    assert "other programs need --to kohya" in line
    assert "--to kohya" not in run("export", "rex", "--to", "kohya", "--out", "b.safetensors")


def test_layers_that_other_programs_do_not_read_are_named(library: Library, shared_base: StableDiffusion) -> None:
    make_concept(shared_base, "all", targets=("conv_in", "conv_out", "linear_1", "to_q")).save("all.safetensors")
    said = run("export", "all.safetensors", "--to", "kohya", "--out", "all-kohya.safetensors")
    assert "unet.conv_in" in said
    assert "unet.conv_out" in said
    assert "conv_in" not in run("export", "rex", "--to", "kohya", "--out", "rex-kohya.safetensors")


def refused(*args: str) -> str:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_a_file_in_the_place_of_a_folder_is_said_before_anything_is_drawn(tmp_path: Path) -> None:
    """Once the picture was made first, and then tried to be saved for ever."""
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "pictures"):
        assert "is a file; give a folder" in refused("generate", "a dog", "--base", "nosuch", "--out", str(folder))


def test_a_variable_of_the_shell_that_is_not_set_is_no_folder(library: Library) -> None:
    for args in (
        ["concepts", "check", "--library", ""],
        ["generate", "a dog", "--out", ""],
        ["fuse", "rex", "--out", ""],
    ):
        assert "is empty; give a path" in refused(*args)


def test_a_path_that_is_no_text_is_one_line(library: Library, tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(str(tmp_path)) + b"/a\xff")
    assert "is not UTF-8; rename" in refused("concepts", "add", str(library.path("rex")), "--library", folder)
    assert "is not UTF-8; rename" in refused("export", "rex", "--to", "kohya", "--out", f"{folder}.safetensors")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried"), RuntimeError("a: can't allocate memory: you")]
)
def test_too_little_memory_is_one_line(library: Library, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(Library, "check", fail)
    assert "not enough memory" in refused("concepts", "check")


def test_a_picture_has_at_most_8192_pixels_on_an_edge() -> None:
    assert "8192" in refused("generate", "a dog", "--base", "nosuch", "--width", "1000000000")
