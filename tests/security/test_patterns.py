"""A run's regular expression: searched in linear time, and refused by name where that can't be had."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from cody.line_pattern import LinePattern
from tests.security.asking import START, ended_run, start_body

EVIL = ["(a+)+$", "(?:a?){300}a{300}c", "^(([a-z])+.)+[A-Z]([a-z])+$"]
"""Each takes a backtracking engine longer than the age of the world for the line below."""
LINE = "a" * 4_000 + "!"
WRITING = f"""
import os
with open(os.environ["CODY_EPIC_DIR"] + "/codys-log.md", "a") as log:
    log.write("\\n".join([{LINE!r}] * 20) + "\\n")
    if os.environ["CODY_TURN"] == "2":
        log.write("EPIC COMPLETE\\n")
"""


@pytest.mark.parametrize("pattern", EVIL)
def test_no_pattern_holds_a_run_or_the_server(client: httpx2.Client, workspace: Path, pattern: str) -> None:
    body = start_body(workspace, WRITING, completion={"pattern": f"{pattern}|^EPIC COMPLETE$"}, maxTurns=3)
    path, _ = ended_run(client, body)
    run = client.get(path).json()
    assert (run["status"], run["currentTurn"]) == ("completed", 2)
    assert (run["completion"]["source"], run["completion"]["line"]) == ("log_pattern", "EPIC COMPLETE")


@pytest.mark.parametrize(
    "pattern", ["(", "(?=x)y", "(?<!x)y", r"(a)\1", r"x\Z", "((a{100}){100}){100}", r"(?:\pL{0,60}x){9}", "x" * 513]
)
def test_what_can_not_be_searched_in_linear_time_is_refused(
    client: httpx2.Client, workspace: Path, pattern: str
) -> None:
    refused = client.post(START, json=start_body(workspace, completion={"pattern": pattern}))
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["code"] == "invalid_request"
    assert [one["field"] for one in error["details"]["fields"]] == ["config.completion.pattern"]
    assert error["message"].isprintable()


def test_half_a_character_is_no_pattern() -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        LinePattern("\ud800")


def test_an_expression_is_found_anywhere_in_a_line() -> None:
    assert LinePattern("EPIC (COMPLETE|DONE)").matches("now: EPIC DONE!")
    assert LinePattern("(?i)größe").matches("Die GRÖSSE und die Größe")
    assert not LinePattern("^DONE").matches("not DONE")
    assert not LinePattern("DONE").matches("DO\nNE")
