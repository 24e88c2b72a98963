"""What a body may be: strict JSON, not too deep, and a contract; errors name the field and never quote the value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cody.contracts.run import ControlRequest, ReasonRequest, StartRunRequest
from cody.errors import InvalidRequest
from server.body import MAX_JSON_DEPTH, parsed, validated, wire_path

CONFIG = {"workingDir": "/r"}


def fields_of(value: object) -> dict[str, str]:
    """The fields that are refused in a start request, with what is said of each."""
    with pytest.raises(InvalidRequest) as refused:
        validated(StartRunRequest, value)
    return {one["field"]: one["message"] for one in refused.value.details["fields"]}


def start(**config: Any) -> dict[str, Any]:
    return {"epicId": "e", "config": {**CONFIG, **config}}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{} {}",
        b"NaN",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"1" * 500 + b"}",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b"{'a':1}",
        b'{"a":1,}',
        '{"ä":1}'.encode("utf-16"),
    ],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^body: "):
        parsed(raw)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_limited(opening: str, closing: str) -> None:
    def nested(depth: int, inner: str) -> bytes:
        return (opening * depth + inner + closing * depth).encode()

    assert parsed(nested(MAX_JSON_DEPTH, "1"))
    assert parsed(nested(MAX_JSON_DEPTH - 1, "{}"))
    for too_deep in (nested(MAX_JSON_DEPTH + 1, "1"), nested(MAX_JSON_DEPTH, "{}"), nested(50_000, "1")):
        with pytest.raises(InvalidRequest):
            parsed(too_deep)


def test_scalars_are_json_too_and_then_not_an_object() -> None:
    for raw in (b"1", b'"x"', b"null", b"[]"):
        with pytest.raises(InvalidRequest, match=r"^body: must be an object$"):
            validated(ReasonRequest, parsed(raw))


def test_missing_wrong_and_unknown_fields_are_named_by_their_wire_path() -> None:
    assert fields_of({}) == {"epicId": "is required", "config": "is required"}
    assert fields_of(start(maxTurns="3")) == {"config.maxTurns": "should be a valid integer"}
    assert fields_of(start(maxTurns=0))["config.maxTurns"].endswith("greater than or equal to 1")
    assert fields_of(start(nope=1)) == {"config.nope": "is not a known field"}
    assert fields_of(start(watch={"include": ["a", 3]})).keys() == {"config.watch.include[1]"}
    assert fields_of(start(completion=[])) == {"config.completion": "must be an object"}


def test_python_names_are_not_wire_names() -> None:
    assert fields_of({"epic_id": "e", "config": CONFIG}).keys() == {"epicId", "epic_id"}


def test_a_valid_body_becomes_the_contract() -> None:
    made = validated(StartRunRequest, parsed(json.dumps(start(maxTurns=2.0, loopDelaySec=1)).encode()))
    assert (made.epic_id, made.config.max_turns, made.config.loop_delay_sec) == ("e", 2, 1.0)


def test_values_are_never_quoted() -> None:
    secret = "sk-verysecret" * 100
    with pytest.raises(InvalidRequest) as refused:
        validated(
            StartRunRequest, {"epicId": [secret], "config": {"workingDir": {"x": secret}, "env": {"A": [secret]}}}
        )
    assert "verysecret" not in refused.value.message + json.dumps(refused.value.details)


def test_names_in_messages_are_short_and_printable() -> None:
    name = "\x1b[31m\n" + "n" * 5_000
    (field,) = fields_of(start(**{name: 1}))
    assert field.startswith("config.\\x1b[31m\\n")
    assert len(field) < 200


def test_many_problems_are_counted_and_a_few_of_them_listed() -> None:
    with pytest.raises(InvalidRequest, match=r"\(and 99 more\)") as refused:
        validated(ControlRequest, {"action": "pause"} | {f"x{number}": 1 for number in range(100)})
    assert len(refused.value.details["fields"]) == 20


def test_a_path_in_the_body_reads_as_its_sender_wrote_it() -> None:
    assert wire_path(("config", "command", 2)) == "config.command[2]"
    assert wire_path(()) == "body"
