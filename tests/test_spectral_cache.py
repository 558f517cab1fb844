"""The disk cache of triplets."""

import logging
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from spectral_fusion.spectral import cache, cached_triplets, singular_triplets


@pytest.fixture
def weight():
    return torch.randn(200, 220, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def counted(monkeypatch):
    """Count the decompositions, full ones and others."""
    calls = []

    def noted(decompose):
        def run(*arguments):
            found = decompose(*arguments)
            if found is not None:
                calls.append(decompose.__name__)
            return found

        return run

    for decompose in (cache.end_triplets, cache.full_triplets):
        monkeypatch.setattr(cache, decompose.__name__, noted(decompose))
    return calls


def entries(folder):
    return sorted(folder.iterdir())


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_second_call_reads_what_the_first_computed(weight, tmp_path, counted):
    first, second = (cached_triplets(weight, 0, 4, cache_dir=tmp_path) for _ in range(2))
    assert same(first, second)
    assert same(first, singular_triplets(weight, 0, 4))
    assert len(counted) == 1


def test_the_key_is_the_content(weight, tmp_path, counted):
    cached_triplets(weight, 0, 4, cache_dir=tmp_path)
    cached_triplets(weight.clone(), 0, 4, cache_dir=tmp_path)
    assert len(counted) == 1
    changed = weight.clone()
    changed[7, 7] += 1
    for other, lo, hi in ((changed, 0, 4), (1.01 * weight, 0, 4), (weight, 40, 44), (weight.view(220, 200), 0, 4)):
        assert same(cached_triplets(other, lo, hi, cache_dir=tmp_path), singular_triplets(other, lo, hi))
    assert len(counted) == 5


def test_one_full_decomposition_serves_all_bands_of_an_end(tmp_path, counted):
    weight = torch.randn(400, 420, generator=torch.Generator().manual_seed(0))
    for lo in (352, 360, 368):  # beyond the reach of an iteration, within an eighth from the bottom
        assert same(cached_triplets(weight, lo, lo + 8, cache_dir=tmp_path), singular_triplets(weight, lo, lo + 8))
    assert counted == ["full_triplets"]
    cached_triplets(weight, 392, 400, cache_dir=tmp_path)
    assert counted == ["full_triplets", "end_triplets"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lo", [0, 196])
def test_a_rounded_copy_finds_the_bands_of_the_original(weight, tmp_path, counted, dtype, lo):
    original = cached_triplets(weight, lo, lo + 4, cache_dir=tmp_path)
    assert same(cached_triplets(weight.to(dtype), lo, lo + 4, cache_dir=tmp_path), original)
    assert same(cached_triplets(weight.to(dtype).float(), lo, lo + 4, cache_dir=tmp_path), original)
    assert len(counted) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bands_of_a_rounded_copy_give_way_to_the_original(weight, tmp_path, counted, dtype):
    cached_triplets(weight.to(dtype).float(), 0, 4, cache_dir=tmp_path)
    original = cached_triplets(weight, 0, 4, cache_dir=tmp_path)
    assert same(original, singular_triplets(weight, 0, 4))
    assert same(cached_triplets(weight.to(dtype), 0, 4, cache_dir=tmp_path), original)
    assert len(counted) == 2


@pytest.mark.parametrize("damage", ["empty", "truncated", "random", "other tensors", "changed values"])
def test_a_broken_entry_is_recomputed_and_replaced(weight, tmp_path, counted, caplog, damage):
    expected = cached_triplets(weight, 0, 4, cache_dir=tmp_path)
    for kept in entries(tmp_path):
        if not kept.name.endswith("-0-4.safetensors"):
            kept.unlink()
    (entry,) = entries(tmp_path)
    data = entry.read_bytes()
    broken = {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "random": bytes(range(256)) * 8,
        "other tensors": cache.save({name: torch.zeros(3) for name in "USV"}),
        "changed values": data[:-1200] + bytes(1200),
    }[damage]
    entry.write_bytes(broken)
    with caplog.at_level(logging.WARNING):
        assert same(cached_triplets(weight, 0, 4, cache_dir=tmp_path), expected)
    assert str(entry) in caplog.text
    assert entry in entries(tmp_path)
    assert entry.read_bytes() == data
    assert len(counted) == 2


def test_a_folder_that_cannot_be_written_costs_only_the_computation(weight, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    assert same(cached_triplets(weight, 0, 4, cache_dir=blocker), singular_triplets(weight, 0, 4))
    assert blocker.read_text() == "not a folder"


def test_small_weights_are_not_cached(tmp_path):
    cached_triplets(torch.randn(20, 30), 0, 4, cache_dir=tmp_path)
    assert entries(tmp_path) == []


def test_the_default_folder_follows_the_environment(weight, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_FUSION_CACHE", str(tmp_path / "own"))
    cached_triplets(weight, 0, 4)
    assert len(entries(tmp_path / "own")) > 0
    monkeypatch.delenv("SPECTRAL_FUSION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    cached_triplets(weight, 0, 4)
    assert len(entries(tmp_path / "xdg" / "spectral-fusion")) > 0


def _many(arguments):
    weight, folder = arguments
    return [cached_triplets(weight, lo, lo + 4, cache_dir=folder) for lo in (0, 4, 8)]


def test_two_processes_share_a_folder(weight, tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = pool.map(_many, [(weight, tmp_path)] * 2)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert not list(tmp_path.glob("*.part"))
    assert len(entries(tmp_path)) == 4  # three bands and what is kept of the full decomposition
