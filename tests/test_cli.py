"""The command line's own behaviour: start-up, errors, flags with several values, settings files."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from spectral_fusion.cli import VERBS, Group, start
from spectral_fusion.cli.command import Command, ConfigFile, repeat_flags
from spectral_fusion.errors import InputError

HEAVY = ("torch", "diffusers", "transformers", "peft", "gradio", "numpy", "PIL")


def probe(
    prompt: str,
    names: Annotated[list[str] | None, typer.Option("--names", "--name")] = None,
    weights: Annotated[list[float] | None, typer.Option()] = None,
    batch_size: int = 1,
    fail: str = "",
    config: ConfigFile = None,
) -> None:
    """A verb that says what it was given, or fails as told."""
    if fail == "input":
        raise InputError("steps must be positive; got 0; give --steps 20")
    if fail == "disk":
        raise OSError(28, "No space left on device", "out.png")
    if fail == "bug":
        raise ZeroDivisionError
    if fail == "interrupt":
        raise KeyboardInterrupt
    typer.echo(f"{prompt} {names} {weights} {batch_size}")


def run(*args: str) -> Result:
    app = typer.Typer(cls=Group, callback=start, pretty_exceptions_enable=False)
    app.command("probe", cls=Command)(probe)
    return CliRunner().invoke(app, list(args))


def test_help_answers_within_half_a_second_and_imports_nothing_heavy() -> None:
    """Half a second of processor time, which is the time that passes on a machine with nothing else to do."""
    code = (
        "import sys, time, spectral_fusion.cli\n"
        "try: spectral_fusion.cli.app(['--help'], prog_name='spectral-fusion')\n"
        f"finally: print('HEAVY', [name for name in {HEAVY} if name in sys.modules], time.process_time())\n"
    )
    seconds = []
    for _ in range(5):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "HEAVY []" in result.stdout
        assert all(verb in result.stdout for verb in VERBS)
        seconds.append(float(result.stdout.split()[-1]))
    assert min(seconds) < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    from spectral_fusion.cli import app

    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert verb in result.stdout


def test_python_dash_m_runs_the_same_program() -> None:
    result = subprocess.run([sys.executable, "-m", "spectral_fusion", "--version"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith("spectral-fusion ")


@pytest.mark.parametrize(
    ("fail", "words"), [("input", "give --steps 20"), ("disk", "No space left on device: out.png")]
)
def test_bad_input_is_one_line_and_exit_code_2(fail: str, words: str) -> None:
    result = run("probe", "x", "--fail", fail)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert words in result.stderr


def test_debug_shows_the_error_itself() -> None:
    assert isinstance(run("--debug", "probe", "x", "--fail", "input").exception, InputError)


def test_a_bug_of_ours_is_not_reported_as_bad_input() -> None:
    assert isinstance(run("probe", "x", "--fail", "bug").exception, ZeroDivisionError)


def test_ctrl_c_ends_without_traceback() -> None:
    result = run("probe", "x", "--fail", "interrupt")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


def test_a_list_flag_takes_several_values() -> None:
    result = run("probe", "x", "--names", "rex", "tom", "--weights", "1", "-0.5", "--batch-size", "2")
    assert result.stdout == "x ['rex', 'tom'] [1.0, -0.5] 2\n"
    assert run("probe", "x", "--names", "rex", "--names", "tom").stdout == "x ['rex', 'tom'] None 1\n"


def test_repeat_flags_leaves_other_arguments_alone() -> None:
    assert repeat_flags(["a", "--one", "b", "c"], {"--many"}) == ["a", "--one", "b", "c"]
    assert repeat_flags(["--many", "1", "--", "2", "3"], {"--many"}) == ["--many", "1", "--", "2", "3"]
    assert repeat_flags(["--many", "1", "2", "-x", "3"], {"--many"}) == ["--many", "1", "--many", "2", "-x", "3"]


def test_weights_that_are_not_numbers_are_refused() -> None:
    result = run("probe", "x", "--weights", "much")
    assert result.exit_code == 2
    assert "--weights" in result.stderr


def test_flags_override_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('names = "rex"\nweights = [1, 0.5]\nbatch-size = 4\n')
    assert run("probe", "x", "--config", str(file)).stdout == "x ['rex'] [1.0, 0.5] 4\n"
    assert run("probe", "x", "--config", str(file), "--batch-size", "2").stdout == "x ['rex'] [1.0, 0.5] 2\n"


def test_a_settings_file_names_settings_as_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('name = "rex"\n')
    assert run("probe", "x", "--config", str(file)).stdout == "x ['rex'] None 1\n"


@pytest.mark.parametrize("text", ["batch-size = 2.5", "batch-size = true", "batch-size = [4]", 'weights = ["much"]'])
def test_a_value_of_another_type_in_a_settings_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    result = run("probe", "x", "--config", str(file))
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [("batch-sise = 4", "did you mean 'batch_size'?"), ("zzzz = 4", "known settings"), ("= 4", "not valid TOML")],
)
def test_a_settings_file_that_cannot_be_used_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    result = run("probe", "x", "--config", str(file))
    assert result.exit_code == 2
    assert words in result.stderr
    assert run("probe", "x", "--config", str(tmp_path / "none.toml")).exit_code == 2
