"""PEFT's own tests on the spectral method: how many pass, and what the others say.

    python benchmarks/peft_suite.py CHECKOUT [--workers 1] [--only custom decoder] [--save]

CHECKOUT is a checkout of PEFT. Its tests are copied to a temporary folder, where their lists of methods are replaced by
ours and their lists of models from the hub by tiny models of the same architectures, made from configurations. Nothing
is downloaded, and only tests that take a method as a parameter are run.
"""

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from report import RESULTS, machine

MODES: dict[str, dict[str, object]] = {
    "additive": {},
    "rotational": {"mode": "rotational", "side": "bottom", "train_s": True},
}
TASKS = {
    "decoder": "CAUSAL_LM",
    "feature_extraction": "FEATURE_EXTRACTION",
    "encoder_decoder": "SEQ_2_SEQ_LM",
    "seq_classifier": "SEQ_CLS",
}
FILES = {
    "custom": "test_custom_models.py",
    "decoder": "test_decoder_models.py",
    "feature_extraction": "test_feature_extraction_models.py",
    "encoder_decoder": "test_encoder_decoder_models.py",
    "seq_classifier": "test_seq_classifier.py",
}
CUSTOM: dict[str, tuple[str, dict[str, object]]] = {
    "MLP lin0": ("MLP", {"target_modules": "lin0"}),
    "MLP list": ("MLP", {"target_modules": ["lin0"]}),
    "MLP lin1": ("MLP", {"target_modules": ["lin1"]}),
    "MLP both": ("MLP", {"target_modules": ["lin0", "lin1"]}),
    "MLP head": ("MLP", {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
    "MLP lin0 excluded": ("MLP", {"target_modules": ["lin0", "lin1"], "exclude_modules": ["lin1"]}),
    "transformers Conv1D": ("EmbConv1D", {"target_modules": ["conv1d"], "r": 1}),
    "Conv2d": ("Conv2d", {"target_modules": ["conv2d"]}),
    "Conv2d and linear": ("Conv2d", {"target_modules": ["conv2d", "lin0"]}),
}
SMALL = {
    "vocab_size": 1024,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
OTHER = {
    "qwen2": {**SMALL, "num_key_value_heads": 2},
    "gpt2": {"vocab_size": 1024, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gptj": {"vocab_size": 1024, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "rotary_dim": 4},
    "opt": {
        **{key: value for key, value in SMALL.items() if key != "intermediate_size"},
        **{"ffn_dim": 64, "word_embed_proj_dim": 32},
    },
    "t5": {"vocab_size": 1024, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    "bart": {
        **{"vocab_size": 1024, "d_model": 32, "max_position_embeddings": 256},
        **{f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 64))},
        **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    },
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=FILES, default=list(FILES))
    parser.add_argument("--save", action="store_true", help="write docs/results/peft-suite.md")
    settings = parser.parse_args()
    rows: list[list[object]] = []
    reasons: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        tests = prepare(settings.checkout, Path(folder))
        for name in settings.only:
            counts, found = run(tests, name, settings.workers)
            rows.append([name, *(counts[kind] for kind in ("passed", "failed", "skipped"))])
            reasons.update(found)
            print(*rows[-1], flush=True)
    text = describe(settings.checkout, rows, reasons)
    print(text)
    if settings.save:
        (RESULTS / "peft-suite.md").write_text(text, encoding="utf-8")


def prepare(checkout: Path, folder: Path) -> Path:
    """The tests in a folder of their own, with our method and local models in their lists."""
    tests = folder / "tests"
    tests.mkdir()
    for source in (checkout / "tests").glob("*.py"):
        text = source.read_text(encoding="utf-8")
        (tests / source.name).write_text(rewritten(source.name, text, folder), encoding="utf-8")
    # what the tests import but those that run do not use
    (folder / "datasets.py").write_text("def load_dataset(*args, **kwargs):\n    raise OSError('offline')\n")
    (folder / "pytest.ini").write_text("[pytest]\n")
    return tests


def rewritten(name: str, text: str, folder: Path) -> str:
    """A test file with the values of its top-level lists replaced."""
    kind = next((kind for kind, file in FILES.items() if file == name), None)
    if kind is None:
        return text
    lines = text.splitlines(keepends=True)
    lists = [node for node in ast.parse(text).body if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)]
    for node in reversed(lists):
        (target,) = node.targets
        assert isinstance(target, ast.Name)
        value = replacement(kind, target.id, node, folder)
        if value is not None:
            lines[node.lineno - 1 : node.end_lineno] = [f"{target.id} = {value}\n"]
    first = next(
        node.lineno for node in ast.parse("".join(lines)).body if isinstance(node, ast.Import | ast.ImportFrom)
    )
    lines.insert(first - 1, "from spectral_fusion.adapter import SpectralConfig\n")
    return "".join(lines)


def replacement(kind: str, name: str, node: ast.Assign, folder: Path) -> str | None:
    """The source of what a list becomes; None: it stays."""
    if name == "ALL_CONFIGS":
        base: dict[str, object] = {"task_type": TASKS[kind], "target_modules": None, "r": 4}
        return listed(f"(SpectralConfig, {base | mode!r})" for mode in MODES.values())
    if name.endswith("MODELS_TO_TEST") or name == "SMALL_GRID_MODELS":
        ids = [element.value for element in node.value.elts]  # type: ignore[attr-defined]
        return repr([make_model(folder, hub_id) for hub_id in ids])
    if name == "TEST_CASES":
        return listed(
            f"('Spectral {mode} {case}', {model!r}, SpectralConfig, { ({'r': 2} | settings | extra)!r})"
            for mode, extra in MODES.items()
            for case, (model, settings) in CUSTOM.items()
        )
    if name == "MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES":
        one, same, other = (
            {"r": 2, "target_modules": [layer], "band": band, "init_weights": False} for layer, band in PAIRS
        )
        return listed(
            f"('Spectral {mode} {case}', 'spectral', SpectralConfig, {one | extra!r}, {second | extra!r})"
            for mode, extra in MODES.items()
            for case, second in (("Same", same), ("Different", other))
        )
    return "[]" if name == "MIXED_ADAPTER_TEST_CASES" else None


PAIRS = (("lin0", 0), ("lin0", 1), ("lin1", 0))


def listed(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"


def make_model(folder: Path, hub_id: str) -> str:
    """Write a tiny model of the architecture that a hub id names, with a tokenizer; returns where."""
    target = folder / "models" / hub_id.partition("/")[2]
    if target.exists():
        return str(target)
    class_name, model_type = architecture(hub_id)
    config_class = transformers.AutoConfig.for_model(model_type).__class__
    config = config_class(**OTHER.get(model_type, SMALL) | SPECIAL)
    if model_type in ("t5", "bart"):
        config.decoder_start_token_id = 0
    torch.manual_seed(0)
    getattr(transformers, class_name)(config).eval().save_pretrained(target)
    words = {f"w{i}": i for i in range(1000)} | {"<unk>": 1000}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="w0", bos_token="w1", eos_token="w2"
    ).save_pretrained(target)
    return str(target)


def architecture(hub_id: str) -> tuple[str, str]:
    """(class of transformers, model type) of a tiny model by its hub id."""
    name = hub_id.partition("/")[2]
    if name == "tiny-dummy-qwen2":
        return "Qwen2ForCausalLM", "qwen2"
    if name == "tiny-random-gpt2":
        return "GPT2LMHeadModel", "gpt2"
    found = re.search(r"[A-Z]\w+", name)
    assert found is not None
    class_name = found[0].partition("-")[0]
    config = getattr(transformers, class_name).config_class
    return class_name, config.model_type


def run(tests: Path, name: str, workers: int) -> tuple[Counter[str], Counter[str]]:
    """Counts of one file, and how often each reason for a failure occurs."""
    report = tests.parent / f"{name}.xml"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{tests.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", f"tests/{FILES[name]}", "-q", "-k", "Spectral", f"--junitxml={report}"]
    command += ["-p", "no:cacheprovider", "-n", str(workers)] if workers > 1 else ["-p", "no:cacheprovider"]
    subprocess.run(command, cwd=tests.parent, env=environment, stdout=subprocess.DEVNULL, check=False)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        outcome = next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed")
        counts[{"failure": "failed", "error": "failed"}.get(outcome, outcome)] += 1
        if outcome in ("failure", "error"):
            element = case.find(outcome)
            message = (element.get("message", "") if element is not None else "").splitlines()
            test = str(case.get("name")).partition("[")[0]
            reasons[f"`{test}`: {message[0][:160] if message else ''}"] += 1
            if os.environ.get("SHOW"):
                print(case.get("name"), element.text if element is not None else "")
    return counts, reasons


def describe(checkout: Path, rows: list[list[object]], reasons: Counter[str]) -> str:
    version = re.search(r'__version__ = "(.*)"', (checkout / "src/peft/__init__.py").read_text())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=False)
    table: list[list[object]] = [["tests of", "passed", "failed", "skipped"], ["---", "---:", "---:", "---:"], *rows]
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in table]
    failures = [f"* {count} x {reason}" for reason, count in reasons.most_common()] or ["None failed."]
    source = f"{version[1] if version else '?'} {commit.stdout.strip()[:12]}".strip()
    return "\n".join(
        [
            "# PEFT's own tests on the spectral method",
            "",
            *lines,
            "",
            f"Tests of PEFT {source}: those that take a method as a parameter, with the additive adapter and the",
            "rotational one, in a bottom band and with trained singular values, in place of PEFT's methods. Models of",
            "the hub are replaced by tiny ones of the same architecture, made from configurations.",
            "",
            "## What failed",
            "",
            *failures,
            "",
            f"{machine()}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
