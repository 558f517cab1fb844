"""The language study: tasks that can be checked, sizes that match, runs that go on where they stopped, a report."""

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from language.methods import (
    METHODS,
    PLACES,
    Context,
    adapt,
    band_basis,
    budget,
    matched_size,
    target_layers,
    trained_numbers,
)
from language.models import BASES, trained_base
from language.tables import Row, best_rate, draw_losses, report_text, rows_of, said, verdict
from language.tasks import IGNORED, LENGTH, LETTERS, NUMBER, TASKS, WORDS, batch, exact_matches, part_of
from language.timing import middle, step_ratios
from language.training import Adaptation, means, train
from language_study import KEY, SEARCH_SEED, Scale, known_methods, next_rate, plan, report, study
from lines import Lines
from spectral_fusion.errors import InputError
from study.statistics import Estimate

WIDTH = 32
TINY = Scale(rates=(1e-2,), seeds=1, steps=3, rank=2, width=WIDTH, blocks=1, base_steps=2)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_question_fits_and_belongs_to_one_part(task) -> None:
    rows, labels = batch(task, "test", 200, "seed")
    assert rows.shape == labels.shape == (200, LENGTH)
    assert torch.equal(rows, batch(task, "test", 200, "seed")[0])
    assert not torch.equal(rows, batch(task, "test", 200, "other")[0])
    asked = [
        [WORDS[token] for token, label in zip(*pair, strict=True) if label == IGNORED and token != 0]
        for pair in zip(rows.tolist(), labels.tolist(), strict=True)
    ]
    assert {part_of(question) for question in asked} == {"test"}


def test_answers_are_right() -> None:
    source = random.Random(0)
    for _ in range(200):
        question, answer = TASKS["one-step problems"].draw(source)
        first, second = (int(word) for word in question if word.isdigit())
        assert int(answer[0]) == (first + second if "gets" in question else first - second)
        question, answer = TASKS["problems of two people"].draw(source)
        first, second = (int(word) for word in question if word.isdigit())
        assert int(answer[0]) == (first + second if "together" in question else abs(first - second))
        question, answer = TASKS["turn and next"].draw(source)
        assert [LETTERS[(LETTERS.index(x) + 1) % 16] for x in question[-2:0:-1]] == answer


def test_exact_match_wants_every_token_of_the_answer() -> None:
    labels = torch.tensor([[IGNORED, 3, 1, IGNORED]] * 2)
    logits = torch.nn.functional.one_hot(torch.tensor([[3, 1, 0, 0], [3, 2, 0, 0]]), len(WORDS)).float()
    assert exact_matches(logits, labels).tolist() == [True, False]
    assert NUMBER["<end>"] == 1


@pytest.mark.parametrize("name", BASES)
def test_every_method_adapts_every_base_at_nearly_the_same_number(name: str, tmp_path: Path) -> None:
    base = BASES[name]
    torch.manual_seed(0)
    model = base.make(64, 1)
    at = Context(model, base.targets, 20)
    wanted = budget(at, 4)
    rows, labels = batch(base.shifted, "train", 2, "")
    for method in METHODS.values():
        size = matched_size(method, at, wanted)
        adapted = adapt(method, Context(copy.deepcopy(model), base.targets, 20), size)
        if method.make is not None:
            assert abs(math.log(trained_numbers(adapted) / wanted)) < math.log(2), method.title
        adapted(input_ids=rows, labels=labels).loss.backward()


@pytest.mark.parametrize("place", PLACES)
def test_a_band_lies_where_it_says(place: str) -> None:
    model = BASES["llama"].make(WIDTH, 1)
    found = band_basis(model, ("q_proj",), place, 4)
    (name,) = found
    values = torch.linalg.svdvals(target_layers(model, ("q_proj",))[name].weight)
    spans = {"top": values[:4], "middle": values[14:18], "bottom": values[-4:]}
    if place in spans:
        assert torch.allclose(found[name].S, spans[place], atol=1e-5)
    else:
        assert all(torch.isclose(values, value, atol=1e-5).any() for value in found[name].S)


def test_a_study_goes_on_where_it_stopped_and_reports(tmp_path: Path) -> None:
    out, methods = tmp_path / "out", ["full", "lora", "adalora", "additive-top", "rotational-bottom"]
    assert study(out, ["llama"], methods, TINY, until=float("-inf")) == 5  # the rates; no seed can be said yet
    assert study(out, ["llama"], methods, TINY, until=float("inf")) == 0
    path = out / "runs-llama.jsonl"
    whole = path.read_text().splitlines()
    assert len(whole) == 10
    path.write_text("\n".join(whole[:-1]) + "\n" + whole[-1][:30])  # killed while it wrote
    assert study(out, ["llama"], methods, TINY, until=float("inf")) == 0
    again = path.read_text().splitlines()
    assert again[:-1] == whole[:-1]
    changed = {"step"}
    last, before = (json.loads(line) for line in (again[-1], whole[-1]))
    assert {k: v for k, v in last.items() if k not in changed} == {k: v for k, v in before.items() if k not in changed}
    report(out, tmp_path / "docs")
    text = (tmp_path / "docs" / "language-study.md").read_text()
    assert "| LoRA |" in text
    assert "additive, top band against" in text
    assert (tmp_path / "docs" / "language-study.png").is_file()
    assert (tmp_path / "docs" / "language-study" / "runs-llama.jsonl").read_text() == path.read_text()


def test_base_is_found_again(tmp_path: Path) -> None:
    first = trained_base(BASES["gpt"], tmp_path, print, width=WIDTH, blocks=1, steps=2)
    second = trained_base(
        BASES["gpt"], tmp_path, lambda _: pytest.fail("trained again"), width=WIDTH, blocks=1, steps=2
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_run_leaves_the_base_as_it_was_and_a_rate_too_high_is_recorded() -> None:
    base = BASES["llama"]
    model = base.make(WIDTH, 1)
    before = copy.deepcopy(model.state_dict())
    found = train(base, model, Adaptation("llama", "full", "test", 1e30, 0, 0, 4))
    assert found["diverged"]
    assert found["accuracy"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def line(method: str, purpose: str, rate: float, accuracy: float, seed: int = 0, base: str = "llama") -> dict:
    run = dict(zip(KEY, (base, method, purpose, rate, seed, 4, 10), strict=True))
    return run | {
        "numbers": 100, "losses": [2.0, 1.0], "accuracy": accuracy, "kept": 0.5, "step": 0.1, "diverged": False
    }  # fmt: skip


def test_rates_are_chosen_in_the_search_and_judged_in_the_test() -> None:
    lines = [line("lora", "search", 1e-3, 0.4), line("lora", "search", 1e-2, 0.6), line("lora", "test", 1e-2, 0.5)]
    lines += [line("lora", "test", 1e-2, 0.7, seed=1), line("lora", "test", 1e-3, 0.99)]
    assert best_rate(lines, "llama", "lora") == (1e-2, 0.6, 2)
    (row,) = rows_of(lines, "llama")
    assert row.accuracy == {0: 0.5, 1: 0.7}
    assert "| LoRA | 100 | 4 | 0.01 | 0.600 ± " in report_text(lines, {"llama": {"a": 0.1}}, "machine")


def test_a_search_climbs_to_a_rate_whose_neighbours_are_worse(tmp_path: Path) -> None:
    rates = (1.0, 2.0, 3.0, 4.0, 5.0)
    for best, wanted in ((3.0, [3, 4, 2]), (5.0, [3, 4, 5]), (1.0, [3, 4, 2, 1])):
        scores: dict[float, tuple[float, float]] = {}
        while (rate := next_rate(rates, scores)) is not None:
            scores[rate] = (-abs(rate - best), 0.0)
        assert [*scores] == wanted
        assert max(scores, key=scores.__getitem__) == best
    # equal accuracies: the lower loss leads on
    assert next_rate(rates, {3.0: (0.0, -2.0), 4.0: (0.0, -1.0)}) == 5.0


def test_a_plan_asks_for_one_rate_after_another_and_for_seeds_when_a_search_is_over(tmp_path: Path) -> None:
    scale, lines = Scale(rates=(1e-3, 1e-2, 1e-1), seeds=2, steps=10), Lines(tmp_path / "runs.jsonl", KEY)
    assert [run["rate"] for run in plan("llama", {"lora": 4, "dora": 4}, lines, scale)] == [1e-2, 1e-2]
    for run in plan("llama", {"lora": 4}, lines, scale):
        lines.add(line("lora", run["purpose"], run["rate"], 0.5 - run["rate"], run["seed"]))
    assert [(run["purpose"], run["rate"], run["seed"]) for run in lines] == [
        ("search", 1e-2, SEARCH_SEED),
        ("search", 1e-1, SEARCH_SEED),
        ("search", 1e-3, SEARCH_SEED),
        ("test", 1e-3, 0),
        ("test", 1e-3, 1),
    ]
    # a method that is added later has its own search, and leaves the seeds of the first as they are
    assert [run["method"] for run in plan("llama", {"lora": 4, "dora": 4}, lines, scale) if run not in lines] == [
        "dora"
    ]


def test_steps_are_timed_in_turn_against_lora() -> None:
    base = BASES["llama"]
    model = base.make(WIDTH, 1)
    found = step_ratios(base, model, {"lora": 2, "additive-top": 2}, 8)
    assert found["lora"] == [1.0] * 5
    assert all(0.1 < ratio < 10 for ratio in found["additive-top"])
    assert middle([float(x) for x in range(1, 102)]) == "51.000 (41.000 to 61.000)"
    assert middle([1.0, 2.0, 3.0]) == "2.000"


def test_report_says_whose_loss_is_nearest_to_full_and_what_is_open() -> None:
    def ended(last: float, *run: Any, **more: Any) -> dict:
        return line(*run, **more) | {"losses": [2.0, last]}

    lines = []
    for method, rate, last in (("full", 1e-3, 0.2), ("lora", 1e-2, 0.5), ("additive-top", 1e-2, 0.4)):
        lines += [ended(last, method, "search", rate, 0.5), ended(last - 0.1, method, "search", 1e-1, 0.1)]
        lines += [ended(last, method, "test", rate, 0.5, seed) for seed in range(3)]
    text = report_text(lines, {"llama": {"a": 0.1}}, "machine", {"llama": {"lora": [1.0] * 9, "full": [0.8] * 9}})
    assert "nearest to full fine-tuning's (0.200): additive, top band 0.400, LoRA 0.500." in text
    assert "The first additive adapter is number 1 of 2." in text
    assert "additive, top band 0.300 (at 0.1), LoRA 0.400 (at 0.1)" in text
    assert "at an end of the grid for full fine-tuning." in text
    assert "Not run on this base: DoRA, PiSSA" in text
    assert "0.800 (0.800 to 0.800)" in text
    assert "## gpt" not in text
    assert [axes.get_title() for axes in draw_losses(lines).axes] == ["llama: problems of two people"]


@pytest.mark.parametrize(("mean", "half", "words"), [(0.2, 0.1, "better"), (-0.2, 0.1, "worse"), (0.1, 0.2, "within")])
def test_a_difference_is_said_with_its_interval(mean: float, half: float, words: str) -> None:
    assert said(Estimate(mean, half, 5)).startswith(words)


def test_verdict_pairs_seeds_and_takes_the_additive_place_of_the_search() -> None:
    def row(method: str, searched: float, values: list[float]) -> Row:
        accuracy = dict(enumerate(values))
        return Row(method, 1, 1, 0.1, searched, 1, accuracy, accuracy, {}, 1.0, 0)

    found = verdict(
        [
            row("full", 1.0, [1.0, 1.0]),
            row("lora", 0.2, [0.3, 0.4]),
            row("dora", 0.1, [0.5, 0.6]),
            row("additive-top", 0.5, [0.6, 0.7]),
            row("additive-bottom", 0.4, [0.9, 0.9]),
        ]
    )
    assert "additive, top band (of 2 bands the best in the search) against DoRA" in found
    assert "0.100" in found
    assert "better" in found


def test_means_cover_all_values() -> None:
    assert means([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]
    assert means([1.0], 25) == [1.0]


def test_lines_drop_what_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    lines = Lines(path, ("a",))
    lines.add({"a": 1, "b": 2})
    with path.open("a") as file:
        file.write('{"a": 2')
    again = Lines(path, ("a",))
    assert {"a": 1} in again
    assert {"a": 2} not in again
    again.add({"a": 2, "b": 3})
    assert len(Lines(path, ("a",))) == 2


def test_unknown_method_is_one_line() -> None:
    with pytest.raises(InputError, match="no method is called 'loha'"):
        known_methods(["loha"])
