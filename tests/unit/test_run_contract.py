"""What a client may send, and what the errors name when it may not."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cody.contracts.run import ControlRequest, ReasonRequest, RunError, RunSnapshot, StartRunRequest
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import (
    BODY,
    Custom,
    EventBody,
    RunEventBody,
    SubprocessOutput,
    TurnFailed,
    TurnItem,
    payload_json,
    read_event,
)
from cody.contracts.wire import Wire, epoch_ms, utc_text

MINIMAL = {"epicId": "current-epic", "config": {"workingDir": "/repo"}}


def problems(config: dict[str, Any], epic_id: Any = "e") -> set[str]:
    """The wire paths that are complained about."""
    with pytest.raises(ValidationError) as caught:
        StartRunRequest.model_validate({"epicId": epic_id, "config": {"workingDir": "/repo", **config}})
    return {".".join(str(part) for part in error["loc"]) for error in caught.value.errors()}


@pytest.mark.parametrize(("model", "rest"), [(ControlRequest, {"action": "pause"}), (ReasonRequest, {})])
def test_the_contracts_reasons_are_named_and_a_person_may_use_other_words(
    model: type[Wire], rest: dict[str, str]
) -> None:
    (said, _) = model.model_json_schema()["properties"]["reason"]["anyOf"]
    assert said["examples"] == ["manual", "error", "budget", "rate_limit", "no_progress", "approval", "system"]
    for reason in (*said["examples"], "wrong branch", None):
        assert model.model_validate({**rest, "reason": reason}).model_dump()["reason"] == reason
    with pytest.raises(ValidationError, match="at most 500"):
        model.model_validate({**rest, "reason": "x" * 501})


def test_all_but_working_dir_has_a_default() -> None:
    config = StartRunRequest.model_validate(MINIMAL).config
    assert (config.agent, config.sandbox, config.approval, config.session) == (
        "codex",
        "workspace-write",
        "never",
        "fresh",
    )
    assert config.max_turns is None
    assert config.completion.scan_tail_lines == 50


def test_the_config_as_existing_clients_send_it_is_taken() -> None:
    sent = {
        "workingDir": "/repo",
        "loopDelaySec": 5,
        "model": "gpt-5.5",
        "reasoning": "high",
        "approval": "never",
        "sandbox": "workspace-write",
        "completion": {"pattern": "EPIC COMPLETE", "scanTailLines": 50},
        "watch": {"include": ["src/**"], "exclude": ["**/dist/**"]},
        "maxTurns": None,
        "env": {"FOO": "bar"},
    }
    config = StartRunRequest.model_validate({"epicId": "e", "config": sent}).config
    back = config.model_dump(by_alias=True)
    assert {name: back[name] for name in sent} == sent


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"maxTurns": 0}, "config.maxTurns"),
        ({"maxTurns": 2.5}, "config.maxTurns"),
        ({"maxTurns": "3"}, "config.maxTurns"),
        ({"maxTurns": True}, "config.maxTurns"),
        ({"loopDelaySec": -1}, "config.loopDelaySec"),
        ({"loopDelaySec": float("nan")}, "config.loopDelaySec"),
        ({"sandbox": "none"}, "config.sandbox"),
        ({"model": "--config"}, "config.model"),
        ({"model": ""}, "config.model"),
        ({"reasoning": "High Effort"}, "config.reasoning"),
        ({"completion": {"pattern": "("}}, "config.completion.pattern"),
        ({"completion": {"scanTailLines": 0}}, "config.completion.scanTailLines"),
        ({"watch": {"include": "src"}}, "config.watch.include"),
        ({"env": {"A=B": "c"}}, "config.env"),
        ({"env": {"A": "b\0"}}, "config.env"),
        ({"env": {"LD_PRELOAD": "/x.so"}}, "config.env"),
        ({"env": {"DYLD_INSERT_LIBRARIES": "/x"}}, "config.env"),
        ({"env": {"NODE_OPTIONS": "--require /x"}}, "config.env"),
        ({"env": {"BASH_ENV": "/x"}}, "config.env"),
        ({"env": {"PYTHONSTARTUP": "/x"}}, "config.env"),
        ({"env": {"GIT_CONFIG_COUNT": "1"}}, "config.env"),
        ({"env": {"CODY_TOKEN": "x"}}, "config.env"),
        ({"budget": {"maxTokens": 5}}, "config.budget.maxTokens"),
        ({"retry": {"maxAttempts": 3}}, "config.retry"),
        ({"noProgressTurns": 3}, "config.noProgressTurns"),
        ({"verify": {"commands": []}}, "config.verify"),
        ({"checkpoint": True}, "config.checkpoint"),
        ({"agent": "claude"}, "config.agent"),
        ({"agent": "command"}, "config"),
        ({"command": ["true"]}, "config"),
        ({"agent": "command", "command": []}, "config.command"),
        ({"workingDir": "/a\0b"}, "config.workingDir"),
        ({"nonsense": 1}, "config.nonsense"),
    ],
)
def test_what_is_wrong_is_named(config: dict[str, Any], named: str) -> None:
    assert named in problems(config)


@pytest.mark.parametrize("epic_id", ["", ".", "..", "a/b", "../x", "a\\b", "a\0b", "a\nb", "x" * 129, 3, None])
def test_an_epic_id_is_one_path_segment(epic_id: Any) -> None:
    assert problems({}, epic_id) == {"epicId"}


def test_an_integer_may_be_written_as_json_schema_allows() -> None:
    assert RunConfig.model_validate({"workingDir": "/r", "maxTurns": 2.0}).max_turns == 2


def test_snake_case_is_for_python_and_camel_case_for_the_wire() -> None:
    wire = RunConfig(working_dir="/r").model_dump_json(by_alias=True)
    assert "_" not in "".join(re.findall(r'"(\w+)":', wire))
    assert RunConfig.model_validate_json(wire) == RunConfig(working_dir="/r")


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_instants_survive_the_wire(moment: int) -> None:
    assert epoch_ms(utc_text(moment)) == moment
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", utc_text(moment))


def test_an_event_is_flat_and_its_nulls_inside_are_kept() -> None:
    body = TurnItem(turn=2, item={"type": "message", "id": None})
    assert payload_json(body) == b'{"turn":2,"item":{"type":"message","id":null}}'
    event = read_event({"type": "turn_item", "ts": "t", "runId": "r", "seq": 7, "turn": 2, "item": {"id": None}})
    assert (event.seq, event.turn, event.body) == (7, 2, TurnItem(turn=2, item={"id": None}))


def test_an_agents_own_event_is_kept_whole() -> None:
    body = Custom(name="x.y", data={"deep": [1, None, {"a": "b"}]})
    assert BODY.validate_json(b'{"type":"custom",' + payload_json(body)[1:]) == body


def test_a_turn_given_beside_the_body_is_written_as_if_it_were_in_it() -> None:
    for body in (Custom(name="n", data={"a": [{}]}), SubprocessOutput(stream="stdout", text="é\u2028")):
        assert payload_json(body, turn=3) == payload_json(body.model_copy(update={"turn": 3}))
    assert payload_json(EventBody(), turn=3) == b'{"turn":3}'  # type: ignore[arg-type]


def test_a_snapshot_has_the_fields_of_the_contract() -> None:
    fields = {field.alias for field in RunSnapshot.model_fields.values()}
    contract = (
        "runId status reason createdAt updatedAt startedAt finishedAt epicId streamKey config pid workerId host currentTurn "
        "stats completion error subscribers fence"
    )
    assert set(contract.split()) <= fields


@pytest.mark.parametrize("body", get_args(get_args(RunEventBody)[0]), ids=lambda body: body.__name__)
def test_what_may_be_null_may_be_missing(body: type[EventBody]) -> None:
    """Nulls are not written: an event with one must be readable without the field."""
    for name, field in body.model_fields.items():
        if type(None) in get_args(field.annotation):
            assert not field.is_required(), f"{body.__name__}.{name}"


def test_a_turn_without_an_exit_code_is_read_back() -> None:
    body = TurnFailed(turn=1, exit_code=None, error=RunError(code="c", message="m"), duration_ms=1)
    wire = {"type": body.type, "ts": "t", "runId": "r", "seq": 1, **json.loads(payload_json(body))}
    assert read_event(wire).body == body
