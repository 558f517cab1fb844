"""Ready lists of subjects, and identity by faces."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from judging import COLOURS, QUICK, ColourScorers, Named, Nothing, colour_folders, painter
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.cli import app
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate import EvaluateConfig, evaluate, load_scorers
from spectral_fusion.evaluate import painter as painting
from spectral_fusion.evaluate.faces import FaceScorers
from spectral_fusion.evaluate.similarity import Photos
from spectral_fusion.evaluate.subjects import SUBJECT_LISTS
from spectral_fusion.reading import parse_toml

BENCH = SUBJECT_LISTS["dreambench"]
LEFT, RIGHT = (2, 4, 12, 16), (20, 4, 24, 10)


def test_dreambench_has_30_subjects_and_25_prompts_of_each_kind() -> None:
    living = [subject for subject, word in BENCH.classes.items() if word in BENCH.living]
    assert (len(BENCH.classes), len(living), BENCH.seeds) == (30, 9, 4)
    for prompts in (BENCH.live_prompts, BENCH.object_prompts):
        assert len(set(prompts)) == 25
        EvaluateConfig(prompts=prompts)
    shared = BENCH.shared_prompts(["dog", "vase"])
    assert len(shared) == 15
    assert BENCH.shared_prompts(["dog", "cat2"]) == BENCH.live_prompts


def test_its_concepts_are_called_after_the_subjects(tmp_path: Path) -> None:
    settings = EvaluateConfig(**BENCH.settings(["Dog6", "teapot"]))  # type: ignore[arg-type]
    assert settings.own_prompts["Dog6"] == BENCH.live_prompts
    assert settings.own_prompts["teapot"] == BENCH.object_prompts
    (tmp_path / "dog6").mkdir()
    assert BENCH.folders(["Dog6"], tmp_path) == [tmp_path / "dog6"]
    with pytest.raises(InputError, match=r"no photos in .*teapot"):
        BENCH.folders(["Dog6", "teapot"], tmp_path)
    with pytest.raises(InputError, match="no subject 'dog9'; did you mean dog"):
        BENCH.subject("dog9")
    with pytest.raises(InputError, match="no prompts for 'rex'"):
        EvaluateConfig(own_prompts={"rex": ()})


def test_each_concept_is_drawn_by_its_own_prompts_and_all_together_by_those_they_share(
    monkeypatch: pytest.MonkeyPatch, shared_base: StableDiffusion, tmp_path: Path
) -> None:
    own = {"rex": ("a {} wearing a red hat", "a {} in the snow"), "tom": ("a {} on a mirror",)}
    config = EvaluateConfig(**{**QUICK.to_json(), "prompts": ("a {} in the snow",), "own_prompts": own})
    monkeypatch.setattr(painting, "generate", painter({}))
    subjects = tuple(Named(name, word) for name, word in zip(COLOURS, ("dog", "vase", "car"), strict=True))
    found = evaluate(shared_base, [Nothing(subjects)], colour_folders(tmp_path), ColourScorers(), config)
    drawn = {(d.setting, d.prompt) for d in found.methods[0].drawings}
    assert {prompt for setting, prompt in drawn if setting == "alone"} == {
        *("a <rex> dog wearing a red hat", "a <rex> dog in the snow", "a <tom> vase on a mirror"),
        "a <kit> car in the snow",
    }
    assert {prompt for setting, prompt in drawn if setting == "together"} == {
        "a <rex> dog, a <tom> vase and a <kit> car in the snow"
    }
    plain = {d.prompt for d in found.base_drawings if d.setting == "alone"}
    assert plain == {"a dog wearing a red hat", "a dog in the snow", "a vase on a mirror", "a car in the snow"}


def test_the_manifest_for_train_many_has_the_same_subjects() -> None:
    text = (Path(__file__).parents[1] / "examples" / "dreambench.toml").read_text(encoding="utf-8")
    listed = parse_toml(text, "dreambench.toml")["concept"]
    assert {Path(each["images"]).name: each["class"] for each in listed} == BENCH.classes


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--subjects", "dreambench"), "--photos"),
        (("--photos", "photos"), "--subjects"),
        (("--subjects", "dreambench", "--photos", "photos", "--prompts", "a {}"), "leave out"),
        (("--subjects", "dreambench", "--photos", "photos"), "two or more"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path: Path, flags: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(app, ["evaluate", *flags, "--library", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


class Analysis:
    """A stand-in for insightface's: faces are the two squares of a picture that are not black."""

    def __init__(self, name: str, allowed_modules: list[str]) -> None:
        if name == "nowhere":
            raise RuntimeError("no such pack")
        print("find model:", name)

    def prepare(self, ctx_id: int, det_size: tuple[int, int]) -> None:
        pass

    def get(self, pixels: np.ndarray) -> list[SimpleNamespace]:
        faces = []
        for left, top, right, bottom in (RIGHT, LEFT):
            colour = pixels[top + 1, left + 1].astype(float)
            if colour.any():
                unit = colour / np.linalg.norm(colour)
                faces.append(SimpleNamespace(bbox=np.array([left, top, right, bottom]), normed_embedding=unit))
        return faces


@pytest.fixture
def insightface(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("insightface.app")
    module.FaceAnalysis = Analysis  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "insightface", ModuleType("insightface"))
    monkeypatch.setitem(sys.modules, "insightface.app", module)


def faces(left: str, right: str = "black") -> Image.Image:
    image = Image.new("RGB", (32, 20))
    image.paste(left, LEFT)
    image.paste(right, RIGHT)
    return image


def test_the_largest_face_says_who_it_is_and_no_face_is_nobody(
    insightface: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    judge = FaceScorers("buffalo_l", ColourScorers())
    assert capsys.readouterr().out == ""
    seen = judge.embed_identity([faces("red", "blue"), faces("black"), faces("blue")])
    assert seen.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]], "in OpenCV's order, blue first"
    assert judge.text_alignment([faces("red")], ["a", "b"]).tolist() == [[0.5, 0.5]]
    for name, picture in (("ann", faces("red")), ("bob", faces("blue")), ("back", faces("black"))):
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "0.png")
    faces("black").save(tmp_path / "ann" / "1.png")
    ann, bob, back = (ImageFolder.scan(tmp_path / name) for name in ("ann", "bob", "back"))
    photos = Photos.of([ann, bob], judge)
    assert photos.owners.tolist() == [0, 1], "the photo without a face is left out"
    assert torch.equal(photos.similarity(seen[:1]), torch.tensor([[1.0, 0.0]]))
    with pytest.raises(InputError, match=r"nobody is seen in any photo of .*back"):
        Photos.of([ann, back], judge)
    with pytest.raises(InputError, match="'nowhere' cannot be loaded"):
        FaceScorers("nowhere", ColourScorers())


def test_faces_need_the_extra_and_go_without_dino(
    monkeypatch: pytest.MonkeyPatch, shared_base: StableDiffusion
) -> None:
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(InputError, match=r"spectral-fusion\[faces\]"):
        FaceScorers("buffalo_l", ColourScorers())
    with pytest.raises(InputError, match="both are given"):
        load_scorers(shared_base, dino="a/b", faces="buffalo_l")
