"""`from spectral_fusion import fuse`: what a script needs, whatever was imported before."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import spectral_fusion
from spectral_fusion import _HOMES, __all__


@pytest.mark.parametrize("home", _HOMES)
def test_each_name_is_that_of_its_module(home: str) -> None:
    module = import_module(f"spectral_fusion.{home}")
    for name in _HOMES[home]:
        assert getattr(spectral_fusion, name) is getattr(module, name)
        assert not isinstance(getattr(spectral_fusion, name), ModuleType)


def test_all_lists_what_there_is() -> None:
    assert sorted(name for names in _HOMES.values() for name in names) == sorted(__all__)
    assert set(__all__) <= set(dir(spectral_fusion))
    with pytest.raises(AttributeError, match="nothing"):
        spectral_fusion.nothing  # noqa: B018


def test_no_module_has_the_name_of_a_function() -> None:
    """Importing it would put the module in the function's place."""
    folder = Path(spectral_fusion.__file__).parent
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert modules.isdisjoint(__all__)


def test_the_package_alone_imports_nothing_heavy() -> None:
    code = "import spectral_fusion, sys; print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
