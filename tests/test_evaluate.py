"""Evaluation: what scores come out of pictures that are known to be right, wrong or mixed up."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from concepts import make_concept, same_weights, weights_of
from judging import COLOURS, QUICK, ColourScorers, Named, Nothing, colour_folders, painter
from spectral_fusion.base.regions import Box, Region
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate import EvaluateConfig, Evaluation, Spectral, build_methods, evaluate
from spectral_fusion.evaluate import painter as painting
from spectral_fusion.evaluate.boxes import crop_square
from spectral_fusion.evaluate.similarity import Photos, confusion
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.toybox.layout import standing_boxes


@pytest.fixture
def folders(tmp_path: Path) -> list[ImageFolder]:
    return colour_folders(tmp_path)


def scored(
    monkeypatch: pytest.MonkeyPatch, base: StableDiffusion, folders: list[ImageFolder], **shown: str
) -> Evaluation:
    monkeypatch.setattr(painting, "generate", painter(shown))
    method = Nothing(tuple(Named(name) for name in COLOURS))
    return evaluate(base, [method], folders, ColourScorers(), QUICK)


def test_a_perfect_generator_is_always_nearest_to_its_own_photos(
    monkeypatch: pytest.MonkeyPatch, shared_base: StableDiffusion, folders: list[ImageFolder]
) -> None:
    (method,) = scored(monkeypatch, shared_base, folders).methods
    assert all(scores.accuracy == 1 for scores in method.scores.values())
    assert method.scores["alone"].confusion == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert all(value > 0.99 for seeds in method.scores["regions"].identity for value in seeds)
    assert method.identity_lost() == pytest.approx([0, 0, 0])


def test_a_generator_that_mixes_two_up_shows_in_the_confusion_matrix(
    monkeypatch: pytest.MonkeyPatch, shared_base: StableDiffusion, folders: list[ImageFolder]
) -> None:
    (method,) = scored(monkeypatch, shared_base, folders, tom="kit").methods
    for scores in method.scores.values():
        assert scores.confusion == [[4, 0, 0], [0, 0, 4], [0, 0, 4]]
        assert scores.accuracy == pytest.approx(2 / 3)
        assert max(scores.identity[1]) < 0.01


def test_all_methods_are_given_the_same_prompts_and_seeds(
    monkeypatch: pytest.MonkeyPatch, shared_base: StableDiffusion, folders: list[ImageFolder]
) -> None:
    monkeypatch.setattr(painting, "generate", painter({}))
    methods = [Nothing(tuple(Named(name) for name in COLOURS), label) for label in ("one", "two")]
    first, second = evaluate(shared_base, methods, folders, ColourScorers(), QUICK).methods
    drawn = [[(d.setting, d.concept, d.prompt, d.seed) for d in method.drawings] for method in (first, second)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 2 * 3 * 4 + 2 * 4
    assert {prompt for setting, _, prompt, _ in drawn[0] if setting == "together"} == {
        "a photo of a <rex> dog, a <tom> dog and a <kit> dog",
        "a <rex> dog, a <tom> dog and a <kit> dog on grass",
    }


def test_alignment_asks_for_the_prompt_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, shared_base: StableDiffusion, folders: list[ImageFolder]
) -> None:
    asked: set[str] = set()

    class Listening(ColourScorers):
        def text_alignment(self, images: Sequence[Image.Image], captions: Sequence[str]) -> Tensor:
            asked.update(captions)
            return super().text_alignment(images, captions)

    monkeypatch.setattr(painting, "generate", painter({}))
    subjects = (Named("rex"), Named("tom", "cat"), Named("kit", "cat"))
    found = evaluate(shared_base, [Nothing(subjects)], folders, Listening(), QUICK)
    plain = {"a photo of a dog", "a photo of a cat", "a photo of a dog, a cat and a cat"}
    assert asked == plain | {text.replace("a photo of ", "") + " on grass" for text in plain}
    assert found.base_alignment["fused"] == found.methods[0].scores["fused"].alignment == [0.5, 0.5]


def test_real_concepts_go_through_and_the_pipeline_is_as_before(
    base: StableDiffusion, folders: list[ImageFolder]
) -> None:
    before, words = weights_of(base), len(base.tokenizer)
    concepts = [make_concept(base, name, band=band) for band, name in enumerate(("rex", "tom"))]
    methods = build_methods(["spectral-sum", "spectral-mean"], concepts, loras=list)
    config = EvaluateConfig(prompts=("a {}",), seeds=1, num_inference_steps=1)
    found = evaluate(base, methods, folders[:2], ColourScorers(), config)
    assert [method.name for method in found.methods] == ["spectral sum", "spectral mean"]
    alone, averaged = ([d for d in m.drawings if d.setting == "alone"] for m in found.methods)
    assert alone == averaged
    trained = sum(t.numel() for layer in concepts[0].layers.values() for t in layer.trained.values())
    assert found.methods[0].parameters == trained + concepts[0].embeddings["text_encoder"].numel()
    assert same_weights(before, weights_of(base))
    assert len(base.tokenizer) == words


def test_fusing_that_fails_leaves_the_pipeline_as_before(base: StableDiffusion) -> None:
    before = weights_of(base)
    method = Spectral((make_concept(base, "rex"), make_concept(base, "tom", band=1)))
    with pytest.raises(ZeroDivisionError), method.on(base, [0, 1]):
        raise ZeroDivisionError
    assert same_weights(before, weights_of(base))


def test_confusion_counts_each_pair() -> None:
    pairs = torch.tensor([(0, 0), (0, 1), (0, 1), (2, 0)])
    assert confusion(pairs[:, 0], pairs[:, 1], 3) == [[1, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_nearest_is_the_single_nearest_photo_and_similarity_the_mean() -> None:
    embeddings = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), dim=-1)
    photos = Photos((), embeddings, torch.tensor([0, 0, 1]))
    seen = torch.tensor([[0.0, 1.0]])
    assert photos.nearest(seen).tolist() == [0]
    assert photos.similarity(seen)[0].tolist() == pytest.approx([0.5, 0.8])
    assert photos.own_similarity() == pytest.approx([0.0, 1.0])


def test_photos_are_cropped_to_their_masks(folders: list[ImageFolder]) -> None:
    embeddings = Photos.of(folders, ColourScorers()).embeddings
    assert torch.allclose(embeddings, torch.eye(3).repeat_interleave(3, dim=0), atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (80, 64), (64, 80)])
def test_a_crop_is_a_square_inside_the_picture(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size)
    edges = [0.0, 0.3, 0.9, 1.0]
    for left, right in itertools.combinations(edges, 2):
        for top, bottom in itertools.combinations(edges, 2):
            crop = crop_square(picture, Box(left, top, right, bottom))
            assert abs(crop.width - crop.height) <= 1
            assert crop.width <= min(size) + 1


@pytest.mark.parametrize("count", range(1, 9))
def test_subjects_stand_side_by_side_inside_the_picture(count: int) -> None:
    boxes = [Box(*box) for box in standing_boxes(count)]
    assert all(0 <= box.left < box.right <= 1 and 0 <= box.top < box.bottom <= 1 for box in boxes)
    assert all(first.right <= second.left for first, second in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"prompts": ()}, "no prompts"),
        ({"prompts": ("a dog",)}, "does not hold {}"),
    ],
)
def test_bad_settings_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        EvaluateConfig(**settings)


def test_one_concept_cannot_be_compared(shared_base: StableDiffusion, folders: list[ImageFolder]) -> None:
    with pytest.raises(InputError, match="two or more"):
        evaluate(shared_base, [Nothing((Named("rex"),))], folders[:1], ColourScorers())


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(InputError, match="'sum' is unknown"):
        build_methods(["sum"], [], loras=list)


def test_concepts_of_a_sum_are_also_bound_to_their_places(base: StableDiffusion, tmp_path: Path) -> None:
    concepts = [make_concept(base, name, band=band, size=0.3) for band, name in enumerate(("rex", "tom"))]
    folders = colour_folders(tmp_path)[:2]
    config = EvaluateConfig(prompts=("a {} on grass",), seeds=1, num_inference_steps=4, composite=0.5)
    before = weights_of(base)
    methods = build_methods(("spectral-sum", "spectral-mean"), concepts, list)
    first, second = evaluate(base, methods, folders, ColourScorers(), config).methods
    assert same_weights(before, weights_of(base))
    assert "places" not in second.scores
    assert len(first.scores["places"].identity) == 2
    [drawn] = [drawing for drawing in first.drawings if drawing.setting == "places"]
    prompts = {"rex": "a <rex> dog and a dog on grass", "tom": "a dog and a <tom> dog on grass"}
    regions = tuple(Region(prompt, concepts={name: 1.0}) for name, prompt in prompts.items())
    shown = GenerateConfig(drawn.prompt, regions=regions, composite=0.5, num_inference_steps=4, guidance_scale=5.0)
    [expected] = generate(base, shown, concepts=dict.fromkeys(concepts, 1.0))
    assert drawn.image.tobytes() == expected.image.tobytes()
