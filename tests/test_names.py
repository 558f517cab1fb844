"""Names and triggers: one rule for what is allowed and for when two are the same."""

import pytest

from spectral_fusion.errors import InputError
from spectral_fusion.names import check_name, check_trigger, mentions, respell, same, speaks_of


def test_names_come_out_in_one_form() -> None:
    assert check_name("cafe\u0301") == "caf\u00e9"
    assert check_trigger("<cafe\u0301>") == "<caf\u00e9>"


@pytest.mark.parametrize(("first", "second"), [("Rex", "rex"), ("cafe\u0301", "CAF\u00c9"), ("<straße>", "<STRASSE>")])
def test_case_and_form_make_no_difference(first: str, second: str) -> None:
    assert same(first, second)
    assert not same(first, "tom")


def test_a_name_fits_into_a_file_name() -> None:
    assert check_name("\U00020000" * 48)
    with pytest.raises(InputError, match="192 bytes"):
        check_name("\U00020000" * 49)


@pytest.mark.parametrize("name", ["", "x" * 10**6, "\ud800", "a\x00", None, 3, "rex\n", "nul", "COM1", "com¹", "lpt²"])
def test_what_is_no_name_is_refused_briefly(name: object) -> None:
    for check in (check_name, check_trigger):
        with pytest.raises(InputError) as caught:
            check(name)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("written", ["<CAF\u00c9>", "<cafe\u0301>", "<Cafe\u0301>"])
def test_triggers_in_a_text_are_found_in_any_case_and_form(written: str) -> None:
    text = f"a {written} dog, <other> and 1 < 2 > 0"
    assert speaks_of(text, "<caf\u00e9>")
    assert not speaks_of(text, "<caf>")
    assert respell(text, ["<caf\u00e9>", "<rex>"]) == "a <caf\u00e9> dog, <other> and 1 < 2 > 0"
    assert len(mentions(text)) == 2
