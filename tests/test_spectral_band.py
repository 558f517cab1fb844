"""Bands: slices of singular directions."""

import pytest

from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band


def test_a_band_is_the_slice_of_its_rank():
    assert Band(0, 8).within(64) == range(8)
    assert Band(3, 5).within(20) == Band(3, 5).within(33) == range(15, 20)
    assert Band(0, 8, "bottom").within(64) == range(56, 64)
    assert Band(3, 5, "bottom").within(20) == range(5)
    assert Band(3, 5, "bottom").within(33) == range(13, 18)
    assert {band.depth for band in (Band(3, 5), Band(3, 5, "bottom"))} == {20}


def test_bands_of_one_rank_overlap_only_themselves():
    assert Band(1, 8).overlaps(Band(1, 8))
    assert not Band(1, 8).overlaps(Band(2, 8))
    assert not Band(2, 8).overlaps(Band(1, 8))


def test_bands_of_two_ranks_overlap_where_their_slices_do():
    assert Band(1, 8).overlaps(Band(3, 4))
    assert not Band(1, 8).overlaps(Band(1, 4))


@pytest.mark.parametrize("side", ["top", "bottom"])
@pytest.mark.parametrize("directions", [None, 24, 25, 1280])
def test_overlaps_are_those_of_the_directions(side, directions):
    bands = [Band(i, rank, end) for rank in (3, 4, 8) for i in range(24 // rank) for end in ("top", "bottom")]
    one = Band(1, 5, side)
    for other in bands:
        shared = set(one.within(directions or 10**6)) & set(other.within(directions or 10**6))
        assert one.overlaps(other, directions) == other.overlaps(one, directions) == bool(shared)


def test_bands_of_opposite_sides_that_are_apart_in_a_layer_are_apart_in_larger_ones():
    top, bottom = Band(2, 8), Band(1, 8, "bottom")
    assert [top.overlaps(bottom, n) for n in (32, 39, 40, 64, 1280)] == [True, True, False, False, False]
    assert not top.overlaps(bottom)


def test_a_band_says_which_it_is():
    assert (str(Band(1, 8)), Band(1, 8).label) == ("band 1 at rank 8", "top 1")
    assert (str(Band(1, 8, "bottom")), Band(1, 8, "bottom").label) == ("bottom band 1 at rank 8", "bottom 1")


def test_an_unknown_side_is_refused():
    with pytest.raises(InputError, match="middle"):
        Band(0, 8, "middle")


@pytest.mark.parametrize(("index", "rank"), [(-1, 8), (0, 0), (0, -2), (1.5, 8), (0, 2.0), (True, 8), ("0", 8)])
def test_what_is_no_band_is_refused(index, rank):
    with pytest.raises(InputError):
        Band(index, rank)
