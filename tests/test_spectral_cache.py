"""The disk cache of triplets."""

import logging
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from spectral_fusion.spectral import cache, cached_triplets, leading_triplets


@pytest.fixture
def weight():
    return torch.randn(200, 220, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def counted(monkeypatch):
    """Count the decompositions."""
    calls = []

    def decompose(weight, lo, hi):
        calls.append((lo, hi))
        return leading_triplets(weight, lo, hi)

    monkeypatch.setattr(cache, "leading_triplets", decompose)
    return calls


def entries(folder):
    return sorted(folder.iterdir())


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_second_call_reads_what_the_first_computed(weight, tmp_path, counted):
    first, second = (cached_triplets(weight, 0, 4, cache_dir=tmp_path) for _ in range(2))
    assert same(first, second)
    assert same(first, leading_triplets(weight, 0, 4))
    assert counted == [(0, 4)]


def test_the_key_is_the_content(weight, tmp_path, counted):
    cached_triplets(weight, 0, 4, cache_dir=tmp_path)
    cached_triplets(weight.clone(), 0, 4, cache_dir=tmp_path)
    assert len(counted) == 1
    changed = weight.clone()
    changed[7, 7] += 1
    for other, lo, hi in ((changed, 0, 4), (weight, 4, 8), (weight.half(), 0, 4), (weight.view(220, 200), 0, 4)):
        assert same(cached_triplets(other, lo, hi, cache_dir=tmp_path), leading_triplets(other, lo, hi))
    assert len(counted) == 5


@pytest.mark.parametrize("damage", ["empty", "truncated", "random", "other tensors", "changed values"])
def test_a_broken_entry_is_recomputed_and_replaced(weight, tmp_path, counted, caplog, damage):
    expected = cached_triplets(weight, 0, 4, cache_dir=tmp_path)
    (entry,) = entries(tmp_path)
    data = entry.read_bytes()
    broken = {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "random": bytes(range(256)) * 8,
        "other tensors": cache.save({name: torch.zeros(3) for name in "USV"}),
        "changed values": data[:-400] + bytes(400),
    }[damage]
    entry.write_bytes(broken)
    with caplog.at_level(logging.WARNING):
        assert same(cached_triplets(weight, 0, 4, cache_dir=tmp_path), expected)
    assert str(entry) in caplog.text
    assert entries(tmp_path) == [entry]
    assert entry.read_bytes() == data
    assert len(counted) == 2


def test_a_folder_that_cannot_be_written_costs_only_the_computation(weight, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    assert same(cached_triplets(weight, 0, 4, cache_dir=blocker), leading_triplets(weight, 0, 4))
    assert blocker.read_text() == "not a folder"


def test_small_weights_are_not_cached(tmp_path):
    cached_triplets(torch.randn(20, 30), 0, 4, cache_dir=tmp_path)
    assert entries(tmp_path) == []


def test_the_default_folder_follows_the_environment(weight, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_FUSION_CACHE", str(tmp_path / "own"))
    cached_triplets(weight, 0, 4)
    assert len(entries(tmp_path / "own")) == 1
    monkeypatch.delenv("SPECTRAL_FUSION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    cached_triplets(weight, 0, 4)
    assert len(entries(tmp_path / "xdg" / "spectral-fusion")) == 1


def _many(arguments):
    weight, folder = arguments
    return [cached_triplets(weight, lo, lo + 4, cache_dir=folder) for lo in (0, 4, 8)]


def test_two_processes_share_a_folder(weight, tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = pool.map(_many, [(weight, tmp_path)] * 2)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert len(entries(tmp_path)) == 3
