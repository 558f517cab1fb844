"""The pages of docs/theory: what they measure is right, and what they say follows from the data beside them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Factors, Triplets, all_triplets
from theory import alignment, capacity, cost, directions
from theory.page import FOLDER, has_figure, index_text, load_data, page_text, paragraph
from theory_pages import TOPICS, chosen


@pytest.mark.parametrize("name", TOPICS)
def test_page_says_what_its_data_say(name: str) -> None:
    topic = TOPICS[name]
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8") == page_text(topic, load_data(topic))
    assert (FOLDER / f"{name}.png").exists() == has_figure(load_data(topic))


def test_index_lists_every_page() -> None:
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == index_text(list(TOPICS.values()))


@pytest.mark.parametrize("name", TOPICS)
def test_figure_is_drawn_from_the_data(name: str) -> None:
    data = load_data(TOPICS[name])
    assert not has_figure(data) or TOPICS[name].draw(data).axes


def test_kept_ranks_equal_the_bounds_and_are_measured_again_alike() -> None:
    kept = load_data(capacity.TOPIC)["shapes"]
    assert len(kept) == 100
    assert all(row[method][0] == row[method][1] for row in kept for method in capacity.BOUNDS)
    assert capacity.measure(shapes=3)["shapes"] == kept[:3]


def test_alignment_is_one_inside_the_span_and_zero_across_it() -> None:
    axes = torch.eye(6)
    assert alignment.alignment(axes[:, :2] @ torch.tensor([[2.0, 1.0], [0.0, 3.0]]), axes[:, :2]) == pytest.approx(1)
    assert alignment.alignment(axes[:, 2:4], axes[:, :2]) == 0
    assert alignment.alignment(axes[:, 1:3], axes[:, :2]) == pytest.approx(0.5**0.5)


def test_training_finds_planted_directions_at_the_top() -> None:
    weights, wanted = alignment.train(3072, 1, steps=150, seeds=2)
    found = [alignment.spans(weight, 1) for weight in weights]
    tops = [alignment.alignment(span["top"], own) for span, own in zip(found, wanted, strict=True)]
    ends = [alignment.alignment(span["bottom"], own) for span, own in zip(found, wanted, strict=True)]
    assert min(tops) > 0.5 > max(ends)


def test_energy_of_a_delta_lies_in_the_directions_that_it_moves() -> None:
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    full = all_triplets(weight)
    delta = Factors(full.U[:, [1]] * 3, full.V[:, [5]].T)
    shares = directions.energies(delta, full)
    assert shares["writes"].argmax() == 1
    assert shares["reads"].argmax() == 5
    assert float(shares["writes"].sum()) == pytest.approx(1)
    outside = torch.linalg.qr(torch.cat([full.U, torch.randn(12, 1)], dim=1)).Q[:, [8]]
    shares = directions.energies(Factors(outside, full.V[:, [0]].T), full)
    assert float(shares["writes"].sum()) == pytest.approx(0, abs=1e-6)


def test_bins_share_a_spectrum_in_equal_parts() -> None:
    assert directions.binned(torch.ones(40, dtype=torch.float64) / 40, 20) == pytest.approx([0.05] * 20)


def test_sizes_are_those_of_the_tensors() -> None:
    U, S, V = Triplets(torch.zeros(20, 8), torch.zeros(8), torch.zeros(10, 8))
    found = cost.sizes({(20, 10): 2}, 8)
    assert found["band"] == pytest.approx(2 * 4 * (U.numel() + S.numel() + V.numel()) / 1e6, abs=1e-3)
    assert found["weights"] == pytest.approx(2 * 4 * 200 / 1e6, abs=1e-3)


def test_paragraph_is_filled() -> None:
    assert paragraph("a\n  b   c\n") == "a b c"


def test_unknown_page_is_one_line() -> None:
    with pytest.raises(InputError, match="no page is called 'ranks'"):
        chosen(["ranks"])
    script = Path(__file__).parents[1] / "benchmarks" / "theory_pages.py"
    found = subprocess.run([sys.executable, script, "ranks"], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.strip().splitlines()[-1].startswith("error: no page is called 'ranks'")
    assert "Traceback" not in found.stderr
