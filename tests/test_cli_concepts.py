"""The verbs fuse, inspect, export and concepts, as a user types them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from typer.testing import CliRunner, Result

from concepts import make_concept, picture
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.cli import app
from spectral_fusion.concept import Library
from spectral_fusion.fusion import fuse
from tiny import tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    tiny_base().pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def library(shared_base: StableDiffusion, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """A library of rex, tom and bot; the working folder is an empty one."""
    monkeypatch.setenv("SPECTRAL_FUSION_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for band, name in enumerate(("rex", "tom", "bot")):
        Library().add(replace(make_concept(shared_base, name, band=band, seed=band), base_name=str(base)))
    return Library()


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def refused(words: str, *args: object) -> None:
    """The command fails with one line that holds `words`, exit code 2, and writes nothing here."""
    before = sorted(Path().rglob("*"))
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_the_check_shows_bands_overlaps_and_room(library: Library) -> None:
    result = run("fuse", "rex", "tom", "bot", "--weights", "1", "1", "0.8")
    assert result.exit_code == 0
    for words in ("<rex>", "0-3", "0.8", "rex + tom", "disjoint", "Room for 5 more concepts of rank 4"):
        assert words in result.stdout
    record = json.loads(run("fuse", "rex", "tom", "bot", "--weights", "1", "1", "0.8", "--json").stdout)
    assert [concept["weight"] for concept in record["concepts"]] == [1, 1, 0.8]
    assert record["room"] == 5
    assert max(overlap["value"] for overlap in record["overlaps"]) < 1e-3
    mean = json.loads(run("fuse", "rex", "tom", "--reduce", "mean", "--json").stdout)
    assert [concept["weight"] for concept in mean["concepts"]] == [0.5, 0.5]


def test_fusing_to_a_folder_that_a_stock_pipeline_loads(library: Library, base: Path) -> None:
    result = run("fuse", "rex", "tom", "--weights", "1", "0.5", "--out", "fused")
    assert result.exit_code == 0, result.stderr
    stock = StableDiffusion(StableDiffusionPipeline.from_pretrained("fused"))
    stock.pipeline.set_progress_bar_config(disable=True)
    expected = tiny_base()
    fuse(expected, {library.get("rex"): 1.0, library.get("tom"): 0.5})
    assert torch.equal(picture(stock, "a <rex> and a <tom>"), picture(expected, "a <rex> and a <tom>"))
    refused("exists already", "fuse", "rex", "--out", "fused")
    assert run("fuse", "rex", "--out", "fused", "--force", "--base", base).exit_code == 0
    assert "<tom>" not in StableDiffusionPipeline.from_pretrained("fused").tokenizer.get_vocab()


@pytest.mark.parametrize("command", [("fuse", "rex", "tom"), ("export", "rex", "--to", "kohya")])
def test_loras_come_with_their_embeddings(library: Library, command: tuple[str, ...]) -> None:
    result = run(*command, "--out", "made.safetensors", "--half")
    assert result.exit_code == 0, result.stderr
    base = tiny_base()
    for path in sorted(Path("made-embeddings").iterdir()):
        base.pipeline.load_textual_inversion(str(path))
    base.pipeline.load_lora_weights("made.safetensors")
    assert "<rex>_1" in base.tokenizer.get_vocab()
    refused("exists already", *command, "--out", "made.safetensors")
    refused("must end in .safetensors", "export", "rex", "--out", "made.pt")
    assert run(*command, "--out", "made.safetensors", "--force").exit_code == 0


def test_export_names_its_file_itself(library: Library) -> None:
    assert run("export", "rex", "--to", "diffusers").exit_code == 0
    assert Path("rex-diffusers.safetensors").is_file()
    assert Path("rex-diffusers-embeddings/rex.safetensors").is_file()


def test_inspect_says_what_a_file_is(library: Library) -> None:
    result = run("inspect", library.path("rex"))
    assert result.exit_code == 0
    for words in ("<rex>", "0 to 3 of 32", "additive", "Where the delta is", "weaker layers", "MB"):
        assert words in result.stdout
    assert len(run("inspect", "rex", "--layers").stdout.splitlines()) > len(result.stdout.splitlines())
    record = json.loads(run("inspect", "rex", "--json").stdout)
    assert (record["trigger"], record["band"], record["rank"]) == ("<rex>", 0, 4)
    assert record["bytes"] == library.path("rex").stat().st_size
    assert sum(layer["energy_share"] for layer in record["layers"].values()) == pytest.approx(1)
    concept = library.get("rex")
    name, layer = next(iter(record["layers"].items()))
    up, down = concept.factors(name)
    assert layer["delta_norm"] == pytest.approx(torch.linalg.norm(up @ down).item(), rel=1e-4)


def test_concepts_lists_with_a_map_of_bands(library: Library) -> None:
    for result in (run("concepts"), run("concepts", "list")):
        assert result.exit_code == 0
        for words in ("<rex>", "<tom>", "8-11", "32 singular directions", "Room for 5 more"):
            assert words in result.stdout
        (bar,) = (line for line in result.stdout.splitlines() if "singular directions" in line)
        assert (bar.count("█"), bar.count("░")) == (12, 20)
    assert [record["name"] for record in json.loads(run("concepts", "--json").stdout)] == ["rex", "tom", "bot"]
    assert "No concepts" in run("concepts", "list", "--library", "empty").stdout
    assert "No concepts" in run("concepts", "--library", "empty", "list").stdout


def test_concepts_add_remove_restore_rename_show(library: Library, shared_base: StableDiffusion) -> None:
    make_concept(shared_base, "zed", band=1).save("zed.safetensors")
    added = run("concepts", "add", "zed.safetensors")
    assert added.exit_code == 0
    assert "zed and tom share a band" in added.stdout
    refused("--force", "concepts", "add", "zed.safetensors")
    refused("belongs to concept 'zed'", "concepts", "add", "zed.safetensors", "--name", "zed2")
    assert "restore zed" in run("concepts", "remove", "zed").stdout
    refused("no concept 'zed'", "concepts", "show", "zed")
    refused("the band of 'zed' was given to 'tom'", "concepts", "restore", "zed")
    assert run("concepts", "remove", "tom").exit_code == 0
    assert run("concepts", "restore", "zed").exit_code == 0
    assert "<zorro>" in run("concepts", "rename", "zed", "<zorro>").stdout
    assert "<zorro>" in run("concepts", "show", "zed").stdout
    assert json.loads(run("concepts", "show", "zed", "--json").stdout)["trigger"] == "<zorro>"


def test_bad_input(library: Library, shared_base: StableDiffusion, tmp_path: Path) -> None:
    Path("broken.safetensors").write_bytes(b"nonsense")
    torch.save({}, "pickle.safetensors")
    run("export", "rex", "--out", "lora.safetensors")
    stranger = make_concept(tiny_base(seed=1), "zoe", band=4)
    stranger.save("zoe.safetensors")
    make_concept(shared_base, "zed", band=1).save("zed.safetensors")
    refused("no safetensors file", "inspect", "broken.safetensors")
    refused("is a pickle", "inspect", "pickle.safetensors")
    refused("is a LoRA", "inspect", "lora.safetensors")
    refused("is a LoRA", "concepts", "add", "lora.safetensors")
    refused("no concept file at", "inspect", "none.safetensors")
    refused("did you mean 'rex'?", "fuse", "rxe", "tom")
    refused("is named twice", "fuse", "rex", "rex")
    refused("give one weight per concept", "fuse", "rex", "tom", "--weights", "1")
    refused("weight nan", "fuse", "rex", "--weights", "nan")
    refused(f"'zoe' on {stranger.base}", "fuse", "rex", "zoe.safetensors")
    refused("overlap by 1.00", "fuse", "tom", "zed.safetensors", "--out", "fused")
    refused(f"is base {stranger.base}", "fuse", "rex", "--base", other_base(tmp_path), "--out", "fused")
    assert run("fuse", "tom", "zed.safetensors", "--on-overlap", "allow").exit_code == 0


def other_base(folder: Path) -> Path:
    tiny_base(seed=1).pipeline.save_pretrained(folder / "other")
    return folder / "other"
