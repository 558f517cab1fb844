"""Several subjects in one picture: what counts as right, found and alike."""

import pytest
import torch

from spectral_fusion.evaluate.gathering import Gathering, interval, judge_crops, photos_in_common, summary
from spectral_fusion.evaluate.similarity import Photos

AXES = torch.eye(4)


def photos() -> Photos:
    """Two subjects with two photos each, along the axes of the embedding."""
    return Photos((), AXES, torch.tensor([0, 0, 1, 1]))


def test_crops_are_compared_with_each_subjects_photos() -> None:
    own, right, other = judge_crops(photos(), torch.stack([AXES[0], AXES[1]]))
    assert own.tolist() == [0.5, 0.0]
    assert right.tolist() == [True, False]
    assert other.tolist() == [0.0, 0.5]
    assert photos_in_common(photos()) == 0.0


def gathering(identity: list[list[float]], nearest: list[list[bool]]) -> Gathering:
    return Gathering("sum", ("rex", "tom"), identity, nearest, 0.1, [True] * len(identity), 1.0, [])


def test_a_picture_is_a_success_where_all_are_right() -> None:
    found = gathering([[0.5, 0.3], [0.4, 0.0]], [[True, True], [True, False]])
    assert found.success == [True, False]
    figures = summary([found], {"rex": 0.5, "tom": 0.5})
    assert figures["identity"][0] == pytest.approx(0.3)
    assert figures["over alone"][0] == pytest.approx(0.6)
    assert figures["nearest right"][0] == pytest.approx(0.75)
    assert figures["success"][0] == pytest.approx(0.5)
    assert figures["pictures"] == 2


def test_intervals_shrink_with_the_number_of_pictures() -> None:
    assert interval([0.5]) == (0.5, 0.0)
    assert interval([0.0, 1.0] * 50)[1] < interval([0.0, 1.0] * 2)[1]
