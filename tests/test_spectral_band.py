"""Bands: slices of singular directions."""

import pytest

from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band


def test_a_band_is_the_slice_of_its_rank():
    assert (Band(0, 8).lo, Band(0, 8).hi) == (0, 8)
    assert (Band(3, 5).lo, Band(3, 5).hi) == (15, 20)


def test_bands_of_one_rank_overlap_only_themselves():
    assert Band(1, 8).overlaps(Band(1, 8))
    assert not Band(1, 8).overlaps(Band(2, 8))
    assert not Band(2, 8).overlaps(Band(1, 8))


def test_bands_of_two_ranks_overlap_where_their_slices_do():
    assert Band(1, 8).overlaps(Band(3, 4))
    assert not Band(1, 8).overlaps(Band(1, 4))


@pytest.mark.parametrize(("index", "rank"), [(-1, 8), (0, 0), (0, -2), (1.5, 8), (0, 2.0), (True, 8), ("0", 8)])
def test_what_is_no_band_is_refused(index, rank):
    with pytest.raises(InputError):
        Band(index, rank)
