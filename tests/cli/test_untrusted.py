"""What an agent writes can't steer the terminal, and can't look like something else."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cody.cli.untrusted import last_lines, one_line, safe


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(alphabet=st.characters(), max_size=200))
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    shown = safe(text)
    assert all(char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cs"} for char in shown)
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x1b[2J\x1b[H", "␛[2J␛[H"),
        ("\x9b2J", "\ufffd2J"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("safe\roverwritten", "safe␍overwritten"),
        ("exe.\u202etxt", "exe.\ufffdtxt"),
        ("\ud800", "\ufffd"),
        ("Grüße, 世界 👩\u200d💻", "Grüße, 世界 👩\u200d💻"),
    ],
)
def test_shown_as_what_it_is(written: str, shown: str) -> None:
    assert safe(written) == shown


def test_one_line_is_one_line_and_bounded() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("x" * 10_000, 20) == "x" * 19 + "…"
    assert one_line("x" * 20, 20) == "x" * 20


def test_last_lines_are_those_with_something_in_them() -> None:
    assert last_lines("one\n\n two \n\x1b[1mthree\x1b[0m\n\n", 2) == [" two", "three"]
    assert last_lines("x" * 1000, 3, max_chars=10) == ["x" * 9 + "…"]
