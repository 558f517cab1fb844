"""Who may reach the page."""

import pytest
from typer.testing import CliRunner

from spectral_fusion.cli import app
from spectral_fusion.errors import InputError
from spectral_fusion_app.settings import AppSettings, parse_auth


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_needs_no_login(host: str) -> None:
    assert AppSettings(host=host).auth is None


@pytest.mark.parametrize("asked", [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "192.168.1.2"}, {"share": True}])
def test_others_are_let_in_only_on_purpose(asked: dict) -> None:
    with pytest.raises(InputError, match="--auth"):
        AppSettings(**asked)
    AppSettings(**asked, auth=("ann", "secret"))
    AppSettings(**asked, allow_remote=True)


def test_a_login_has_two_parts() -> None:
    assert parse_auth(None) is None
    assert parse_auth("ann:se:cret") == ("ann", "se:cret")
    for text in ("ann", "ann:", ":secret", ""):
        with pytest.raises(InputError, match="user:password"):
            parse_auth(text)


@pytest.mark.parametrize(
    "flags", [["--host", "0.0.0.0"], ["--share"], ["--auth", "ann"], ["--port", "0"], ["--port", "99999"]]
)
def test_the_verb_refuses_before_it_opens_anything(flags: list[str]) -> None:
    result = CliRunner().invoke(app, ["app", *flags])
    assert result.exit_code == 2
    assert result.stderr.count("error: ") == 1


def test_the_login_may_come_from_the_environment() -> None:
    result = CliRunner().invoke(app, ["app", "--host", "0.0.0.0"], env={"SPECTRAL_FUSION_AUTH": "ann"})
    assert "user:password" in result.stderr
