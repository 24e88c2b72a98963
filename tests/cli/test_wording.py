"""Errors in the words of the command line."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from cody.cli.rows import Seen, rows
from cody.cli.wording import compact_json, first_sentence, in_options, sentences
from cody.contracts.lifecycle import REQUESTED, next_status
from cody.contracts.run import RunStatus
from cody.errors import IllegalTransition
from harness.agents.ending import failure
from tests.cli.test_rows import event, shown


def test_no_move_of_the_lifecycle_is_told_by_its_wire_name() -> None:
    told = []
    for status in get_args(RunStatus):
        for action, move in REQUESTED.items():
            try:
                next_status(status, move)
            except IllegalTransition as error:
                told.append(in_options(error.message))
                assert "_requested" not in told[-1], (status, action)
                assert "worker_" not in told[-1]
    assert "the run is queued, and can't be paused now; possible: cody cancel" in told
    assert "the run has ended (failed): it can't be resumed any more" in told


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("workingDir '/x' is not an existing folder", "--working-dir '/x' is not an existing folder"),
        ("config.workingDir /x is not inside", "--working-dir /x is not inside"),
        ("harnessDir 'x' is not a folder", "--harness-dir 'x' is not a folder"),
        ("epicId 'a/b' is not one path segment", "--epic 'a/b' is not one path segment"),
        ("'x' does not exist in /y: correct config.command", "'x' does not exist in /y: correct the command behind --"),
        ("run 3f9a has no turn 9 in the archive", "run 3f9a has no turn 9"),
        ("nothing of ours", "nothing of ours"),
    ],
)
def test_fields_are_told_as_options(given: str, text: str) -> None:
    assert in_options(given) == text


def test_an_error_is_one_clear_block() -> None:
    error = failure(
        "agent_exited", "the command exited with code 3", "See its log.", "one\n\ntwo\x1b[2J", retryable=False
    )
    assert sentences(error.message) == (
        "the command exited with code 3. See its log. The agent's last lines:\n  one\n  two␛[2J"
    )
    assert sentences("one thing") == "one thing"
    assert sentences("is it?\nmaybe.") == "is it? maybe."
    assert first_sentence(error.message) == "the command exited with code 3"


def test_a_run_that_fails_as_its_turn_did_is_told_briefly() -> None:
    error = failure("agent_exited", "it exited with code 3", "See its log.", "last words", retryable=True)
    fields = error.model_dump(by_alias=True)
    seen = Seen()
    [turn] = shown(rows(event("turn_failed", exitCode=3, durationMs=100, error=fields), seen))
    [run] = shown(rows(event("run_failed", error=fields), seen))
    block = "it exited with code 3. See its log. The agent's last lines: (trying again may help)\n  last words"
    assert turn == f"✘ turn 2 failed after 0.1 s: agent_exited: {block}"
    assert run == "✘ run failed: agent_exited: it exited with code 3 (trying again may help)"
    [other] = shown(rows(event("run_failed", error={**fields, "message": "something\nelse"}), seen))
    assert other == "✘ run failed: agent_exited: something. else (trying again may help)"


def test_the_limit_of_turns_says_nothing_about_the_work() -> None:
    seen = Seen()
    rows(event("turn_started", pid=1, responseId="r"), seen)
    for line, said in (("2 of 2 turns made", " of 2 turns"), ("1 of 1 turns made", " of 1 turn"), (None, " of turns")):
        # The events are of turn 2: in the second case a turn was cut off, which does not count.
        ended: dict[str, Any] = {"source": "max_turns", "line": line}
        assert shown(rows(event("completion_detected", **ended), seen)) == [f"· its limit{said} is reached"]
        assert shown(rows(event("run_completed", **ended), seen)) == [f"✔ run ended at its limit{said}"]


def test_data_of_custom_events_is_json() -> None:
    data = {"a": [1, None, True], "b": "é"}
    assert shown(rows(event("custom", name="n", data=data), Seen())) == ['· n {"a":[1,null,true],"b":"é"}']
    assert compact_json({"x": {1}}) == '{"x":"{1}"}'
