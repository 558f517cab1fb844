"""Imports point down only, as ARCHITECTURE.md draws them; also those inside functions."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. Packages of one line never import one another.
LAYERS = [
    {"errors", "boxes", "unfinished", "__init__"},
    {"atomic", "names", "settings"},
    {"reading"},
    {"identify", "journal", "spectral"},
    {"adapter", "toybox", "concept"},
    {"toybox128"},
    {"toybox_sd3"},
    {"base", "picture"},
    {"training", "fusion", "generation"},
    {"evaluate"},
    {"report"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
NAMES = ROOT / "spectral_fusion" / "__init__.py"  # imports the public names when they are asked for, from every layer
FILES = sorted((ROOT / "spectral_fusion").rglob("*.py")) + sorted((ROOT / "app").rglob("*.py"))


def imported_names(source: str) -> list[str]:
    """Every absolute name that the source imports: `from a.b import c` gives `a.b.c`."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer: write the absolute one"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def ours(source: str) -> list[list[str]]:
    """The imports of our own package, as the parts after `spectral_fusion`."""
    parts = [name.split(".") for name in imported_names(source)]
    return [part[1:] for part in parts if part[0] == "spectral_fusion" and len(part) > 1]


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT / "spectral_fusion").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    imports = ours(path.read_text(encoding="utf-8"))
    if path.is_relative_to(ROOT / "app"):
        private = [parts for parts in imports if any(part.startswith("_") for part in parts)]
        assert not private, f"the page uses private names: {private}"
        assert not [parts for parts in imports if parts[0] == "cli"], "the page is an edge beside the command line"
        return
    if path == NAMES:
        return
    layer = layer_of(path)
    for parts in imports:
        target = "__init__" if parts == ["__version__"] else parts[0]
        assert target in LEVEL, "the public names are for others; import from the module that has it"
        assert target == layer or LEVEL[target] < LEVEL[layer], f"{layer} must not import {'.'.join(parts)}"


def test_only_the_verb_that_starts_the_page_imports_it() -> None:
    for path in FILES:
        if any(name.startswith("spectral_fusion_app") for name in imported_names(path.read_text(encoding="utf-8"))):
            assert path.is_relative_to(ROOT / "app") or layer_of(path) == "cli"


def module_of(path: Path) -> str:
    """`spectral_fusion.base.sd` for its file, `spectral_fusion.base` for the package's own."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts[0] = parts[0].replace("app", "spectral_fusion_app")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_files_import_one_another_in_a_circle() -> None:
    files = {module_of(path): path for path in FILES}

    def imported(path: Path) -> set[str]:
        """The files that this one imports, a name of a module counting as the module."""
        names: set[str] = set()
        for name in [] if path == NAMES else imported_names(path.read_text(encoding="utf-8")):
            module = name if name in files else name.rpartition(".")[0]
            if module in files:
                names.add(module)
        return names - {module_of(path)}

    graph = {module: imported(path) for module, path in files.items()}
    order = TopologicalSorter(graph)
    order.prepare()  # raises CycleError, which names the files


PIPELINES = {"StableDiffusionPipeline", "DiffusionPipeline", "StableDiffusionXLPipeline"}
PARTS = {"unet", "text_encoder", "vae", "transformer"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_a_family_knows_what_a_base_is_made_of(path: Path) -> None:
    """toybox trains such models; everything else asks a `Base`."""
    if path.relative_to(ROOT).parts[1] in ("base", "toybox", "toybox128", "toybox_sd3"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            assert node.id not in PIPELINES
        if isinstance(node, ast.Attribute):
            assert node.attr not in PARTS | PIPELINES


def test_imports_inside_functions_are_seen() -> None:
    assert ours("def f():\n    from spectral_fusion.cli import main\n") == [["cli", "main"]]
    assert ours("def f():\n    import spectral_fusion.cli.train\n") == [["cli", "train"]]


def test_every_package_is_installed() -> None:
    listed = re.search(r"packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL)
    assert listed
    names = set(re.findall(r'"([\w.]+)"', listed[1]))
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in FILES if file.name == "__init__.py"}
    assert names == {re.sub(r"^app\b", "spectral_fusion_app", folder) for folder in folders}
