"""Whatever comes in from outside goes through the doors: nothing else opens pictures, JSON, text or tensors of others.

A call that is allowed elsewhere is one on what this package itself has written or ships; its reason stands here.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOORS = ("spectral_fusion/reading/", "spectral_fusion/atomic.py")
CALLS = {"Image.open", "safe_open", "load_file", "json.loads", "json.load", "read_text", "tomllib.loads"}
CALLS |= {"pickle.load", "eval"}
BARE = {"eval"}  # a module's own `eval` is another
# File -> what it may call: all of it reads what this package itself wrote a moment ago, or ships.
ALLOWED = {
    "spectral_fusion/journal.py": {"read_text", "json.loads"},  # of our own job; broken lines are left
    "spectral_fusion/concept/index.py": {"json.loads"},  # our own, its hash checked; each entry is checked as a header
    "spectral_fusion/spectral/cache.py": {"safe_open"},  # our own cache, each entry checked against its weight
    "spectral_fusion/toybox/runner.py": {"safe_open", "json.loads"},  # checkpoints of the base's makers
    "spectral_fusion/base/painted.py": {"Image.open"},  # a mask inside a picture's settings, PNG alone
    "spectral_fusion/identify/header.py": {"json.loads"},  # a base's header, bounded and checked there
}
# To move behind the doors: bases and the page, which have bounds of their own.
OTHERS = ("spectral_fusion/base/", "spectral_fusion/toybox", "app/")
FILES = sorted((ROOT / "spectral_fusion").rglob("*.py")) + sorted((ROOT / "app").rglob("*.py"))


def calls(source: str) -> set[str]:
    """The calls of a file that open something: dotted where the name before the dot decides."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found |= ({name} if name in BARE else {name, name.rpartition(".")[2]} - BARE) & CALLS
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_doors_open_what_comes_from_outside(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    source = path.read_text(encoding="utf-8")
    if name.startswith(DOORS):
        return
    found = calls(source) - ALLOWED.get(name, set())
    if "reading import" in source and "read_text" in source.split("reading import")[1].split("\n\n")[0]:
        found.discard("read_text")
    if name.startswith(OTHERS):
        found &= {"Image.open", "pickle.load", "eval"}
    assert not found, f"{name} opens {', '.join(sorted(found))} itself; go through spectral_fusion.reading"


def test_what_is_allowed_is_there() -> None:
    for name, allowed in ALLOWED.items():
        assert allowed <= calls((ROOT / name).read_text(encoding="utf-8")), f"{name} no longer needs its exception"


def test_calls_are_seen_wherever_they_stand() -> None:
    assert calls("def f():\n    return Image.open(x).size, path.read_text()") == {"Image.open", "read_text"}
