"""Subjects found in pictures: by a base's own detector or one of transformers; a missing one counts nothing."""

import pytest
import torch
from PIL import Image
from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2Processor
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

from judging import ColourScorers
from spectral_fusion.base.load import open_base
from spectral_fusion.base.regions import Box
from spectral_fusion.boxes import overlap
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate.finding import (
    PretrainedDetector,
    embed_crops,
    load_detector,
    pairs,
    seen_subjects,
    settle,
    subject_crops,
)
from spectral_fusion.evaluate.similarity import Photos, confusion
from tiny import tiny_tokenizer

LEFT, RIGHT, MIDDLE = (0.0, 0.4, 0.3, 1.0), (0.6, 0.4, 0.9, 1.0), (0.3, 0.4, 0.6, 1.0)
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


class Told:
    """A detector that sees what it is told, in every picture."""

    def __init__(self, *things):
        self.things = list(things)

    def detect(self, images, words):
        return [[thing for thing in self.things if thing[0] in words] for _ in images]


def test_each_subject_gets_the_surest_thing_of_its_class() -> None:
    seen = [("cat", 0.9, LEFT), ("dog", 0.4, MIDDLE), ("dog", 0.8, RIGHT)]
    assert settle(seen, ["dog", "cat"]) == [Box(*RIGHT), Box(*LEFT)]


def test_class_words_are_compared_without_case() -> None:
    seen = [("dog", 0.8, RIGHT), ("Cat", 0.9, LEFT)]
    assert settle(seen, ["Dog", "cat"]) == [Box(*RIGHT), Box(*LEFT)]


def test_two_of_one_class_stand_from_left_to_right_as_in_the_prompt() -> None:
    assert settle([("cat", 0.9, RIGHT), ("cat", 0.8, LEFT)], ["cat", "cat"]) == [Box(*LEFT), Box(*RIGHT)]


def test_two_boxes_of_one_thing_are_one_subject_and_the_other_is_missing() -> None:
    nearly = (0.01, 0.41, 0.31, 1.0)
    assert overlap(torch.tensor(LEFT), torch.tensor([nearly])) > 0.8
    assert settle([("cat", 0.9, LEFT), ("cat", 0.8, nearly)], ["cat", "cat"]) == [Box(*LEFT), None]


def test_a_missing_subject_is_like_nobody_and_nearest_to_nobody() -> None:
    image = Image.new("RGB", (40, 40), "red")
    crops = subject_crops([image], ["cat", "dog"], [], Told(("cat", 0.9, LEFT)), 0.1)
    seen = embed_crops(ColourScorers(), [crop for (crop,) in crops], 3)
    assert seen[1].tolist() == [0.0, 0.0, 0.0]
    photos = Photos((), torch.eye(3)[:2], torch.tensor([0, 1]))
    assert photos.similarity(seen)[1].tolist() == [0.0, 0.0]
    assert photos.nearest(seen).tolist() == [0, 2]
    assert confusion(torch.tensor([0, 1]), photos.nearest(seen), 2) == [[1, 0, 0], [0, 0, 1]]


def test_without_a_detector_subjects_are_looked_for_in_their_places() -> None:
    image = Image.new("RGB", (40, 40), "red")
    image.paste((0, 0, 255), (20, 0, 40, 40))
    crops = subject_crops([image], ["cat", "dog"], [Box(0, 0.5, 0.4, 0.9), Box(0.6, 0.5, 1, 0.9)], None, 0.0)
    assert [crop.getpixel((2, 2)) for (crop,) in crops] == [(255, 0, 0), (0, 0, 255)]


class ByColour:
    """Finds what it is told; who stands in a box is its mean colour."""

    def __init__(self, *boxes):
        self.boxes = list(boxes)

    def find_boxes(self, images):
        return [self.boxes for _ in images]

    def embed_boxes(self, images, boxes):
        return ColourScorers().embed_identity(
            [image.crop([round(edge * image.width) for edge in box]) for image, box in zip(images, boxes, strict=True)]
        )


def test_things_of_any_class_are_told_apart_by_their_looks_wherever_they_stand() -> None:
    image = Image.new("RGB", (40, 40), "black")
    image.paste((0, 255, 0), (0, 16, 12, 40))
    image.paste((255, 0, 0), (24, 16, 36, 40))
    photos = Photos((), torch.eye(3), torch.tensor([0, 1, 2]))  # a red, a green and a blue subject
    seen = seen_subjects(
        [image], ["cat", "dog", "car"], [0, 1, 2], photos, [], ColourScorers(), ByColour(LEFT, RIGHT), 0
    )
    assert seen.shape == (3, 1, 3)
    assert photos.similarity(seen[:, 0]).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]  # nobody is blue
    (alone,) = seen_subjects([image], ["dog"], [1], photos, [], ColourScorers(), ByColour(LEFT, RIGHT), 0)
    assert alone.tolist() == [[0, 1, 0]]


def test_one_thing_is_one_subject() -> None:
    assert pairs(torch.tensor([[0.9, 0.1], [0.8, 0.7]])) == [(0, 0), (1, 1)]
    assert pairs(torch.tensor([[0.6], [0.8]])) == [(1, 0)]
    assert pairs(torch.zeros(2, 0)) == []


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random OWLv2 in miniature."""
    folder = tmp_path_factory.mktemp("owl")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = Owlv2Config(
        text_config={**SMALL, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
        vision_config={**SMALL, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    processor = Owlv2ImageProcessorPil(size={"height": 32, "width": 32})
    Owlv2Processor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)
    return str(folder)


def test_a_detector_of_transformers_gives_boxes_in_parts_of_the_picture(owl: str) -> None:
    detector = PretrainedDetector(owl, least=0.0)
    for size in ((64, 32), (32, 64), (48, 48)):
        (seen,) = detector.detect([Image.new("RGB", size, "red")], ["cat", "dog", "cat"])
        assert {word for word, _, _ in seen} <= {"cat", "dog"}
        assert seen
        for _, score, (left, top, right, bottom) in seen:
            assert 0 <= score <= 1
            assert 0 <= left <= right <= 1
            assert 0 <= top <= bottom <= 1


def test_a_surer_detector_sees_less(owl: str) -> None:
    image = Image.new("RGB", (32, 32), "red")
    assert not PretrainedDetector(owl, least=0.9999).detect([image], ["cat"])[0]


def test_what_is_no_detector_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="nothing-here"):
        PretrainedDetector(str(tmp_path / "nothing-here"))


def test_toybox_has_no_detector_of_its_own() -> None:
    assert load_detector(open_base("toybox")) is None
