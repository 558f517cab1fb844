"""Several processes train what one would: the batch is shared, gradients are summed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from spectral_fusion.concept import Concept
from spectral_fusion.errors import InputError
from spectral_fusion.training.loop import shares
from training import PROCESSES, draw_photos, free_port, train_tiny, train_tiny_as_rank


def test_shares_are_the_batch_without_gap_or_overlap() -> None:
    for parts, processes in ((1, 1), (2, 1), (1, 2), (3, 2), (2, 4)):
        ranks = [shares(24, parts, processes, rank) for rank in range(processes)]
        assert sorted(index for rank in ranks for share in rank for index in share) == list(range(24))
        assert {len(share) for rank in ranks for share in rank} == {24 // (parts * processes)}


def test_the_parts_of_one_process_are_those_of_two() -> None:
    assert shares(4, 2, 1, 0) == [shares(4, 1, 2, 0)[0], shares(4, 1, 2, 1)[0]]


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 6"):
        shares(8, 2, 3, 0)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Path]:
    """(pictures, settings, concept file) of a training by two processes with gloo."""
    root = tmp_path_factory.mktemp("two")
    photos = draw_photos(root / "photos", 2)
    draw_photos(root / "wide", 1, (80, 40))
    (root / "wide" / "0.png").rename(photos / "wide.png")
    settings = {"steps": 3, "batch_size": 4, "flip": True, "distillation_prompts": 1, "precision": "fp32"}
    port = free_port()
    ranks = [
        PROCESSES.Process(target=train_tiny_as_rank, args=(rank, 2, port, photos, root / "library", settings))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    return photos, settings, root / "library" / "rex" / "concept.safetensors"


def test_two_processes_give_the_file_of_one_that_splits_its_batch_in_two(
    by_two: tuple[Path, dict[str, Any], Path], tmp_path: Path
) -> None:
    """The same sums of the same parts: bit for bit."""
    photos, settings, file = by_two
    train_tiny(photos, tmp_path, **settings, gradient_accumulation=2)
    assert (tmp_path / "rex" / "concept.safetensors").read_bytes() == file.read_bytes()


def test_two_processes_give_what_one_does_with_the_whole_batch(
    by_two: tuple[Path, dict[str, Any], Path], tmp_path: Path
) -> None:
    """Up to the order of float32 sums, which differs with the size of a matrix product."""
    photos, settings, file = by_two
    train_tiny(photos, tmp_path, **settings)
    one, two = Concept.load(tmp_path / "rex"), Concept.load(file)
    for name, layer in one.layers.items():
        for part, tensor in layer.trained.items():
            other = two.layers[name].trained[part]
            assert torch.linalg.vector_norm(tensor - other) < 0.01 * torch.linalg.vector_norm(tensor)
