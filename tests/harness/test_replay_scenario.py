"""Scenario files: what is accepted, how a refusal names the field, and that nothing is lost in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.replay.scenario import Answer, FunctionCall, Message, Scenario, Turn, Usage
from harness.replay.scenario_file import (
    ScenarioError,
    bundled_scenarios,
    dump_scenario,
    load_scenario,
    parse_scenario,
    save_scenario,
)

_MESSAGE = {"type": "message", "text": "hi"}


def _refusal(scenario: dict[str, Any]) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(json.dumps(scenario), origin="bad.yaml")
    return caught.value.message


def _with_answer(**answer: Any) -> dict[str, Any]:
    return {"name": "bad", "turns": [{"responses": [{"items": [_MESSAGE]}, answer]}]}


@pytest.mark.parametrize("name", bundled_scenarios())
def test_bundled_scenarios_are_named_after_their_file_and_described(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.description


@pytest.mark.parametrize(
    ("answer", "place", "reason"),
    [
        ({"items": [{"type": "mesage", "text": "hi"}]}, "turns[0].responses[1].items[0]", "'message'"),
        ({"items": [{"type": "message"}]}, "turns[0].responses[1].items[0].text", "required"),
        ({"items": [{"type": "function_call", "name": "", "arguments": {}}]}, ".items[0].name", "at least 1"),
        ({"items": [_MESSAGE], "delay": 3}, "turns[0].responses[1].delay", "not permitted"),
        ({"items": [_MESSAGE], "delay_ms": -1}, "turns[0].responses[1].delay_ms", "greater than or equal to 0"),
        ({"items": [_MESSAGE], "delay_ms": "3"}, "turns[0].responses[1].delay_ms", "valid integer"),
        ({"items": [_MESSAGE], "usage": {"input": 1, "cached": 2}}, ".responses[1].usage", "parts of input (1)"),
        ({"items": [_MESSAGE], "usage": {"output": 1, "reasoning": 2}}, ".responses[1].usage", "part of output (1)"),
        ({"items": [_MESSAGE], "drop": 2}, "turns[0].responses[1]", "exceeds the 1 items"),
        ({"error": {"status": 200}}, "turns[0].responses[1].error.status", "greater than or equal to 400"),
        ({"error": {"status": 500, "headers": {"a b": "c"}}}, ".error.headers", "'a b' is not the name"),
        ({"error": {"status": 500, "headers": {"a": "b\r\nc: d"}}}, ".error.headers", "printable"),
        ({"error": {"status": 500}, "items": [_MESSAGE]}, "turns[0].responses[1]", "instead of items"),
        ({"error": {"status": 500}, "incomplete": "x"}, "turns[0].responses[1]", "error and incomplete"),
        ({}, "turns[0].responses[1]", "needs items"),
        ({"items": [{"type": "raw", "item": {}}]}, "turns[0].responses[1].items[0].item", "string `type`"),
    ],
)
def test_a_wrong_answer_is_refused_with_file_and_field(answer: dict[str, Any], place: str, reason: str) -> None:
    message = _refusal(_with_answer(**answer))
    assert message.startswith("scenario bad.yaml is not valid:")
    line = next(line for line in message.splitlines() if place in line)
    assert reason in line


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        ({"name": "x"}, "turns: Field required"),
        ({"name": "x", "turns": []}, "turns: "),
        ({"name": "a b", "responses": [{"items": [_MESSAGE]}]}, "name: a name has"),
        (
            {"name": "x", "turns": [{"match": "(", "responses": [{"items": [_MESSAGE]}]}]},
            "turns[0].match: not a regular",
        ),
        ({"name": "x", "turns": [{"responses": []}]}, "turns[0].responses: "),
        ({"name": "x", "responses": [{"items": []}]}, "responses[0]: an answer needs"),
        ({"name": "x", "responses": [{"items": [_MESSAGE]}], "turns": []}, "both `turns` and `responses`"),
        ({"name": "x", "on_exhausted": "loop", "responses": [{"items": [_MESSAGE]}]}, "on_exhausted: "),
    ],
)
def test_a_wrong_scenario_is_refused_with_the_field_as_it_was_written(scenario: dict[str, Any], reason: str) -> None:
    assert reason in _refusal(scenario)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: a\nname: b\n", "the key 'name' is given twice"),
        ("name: [", "is not YAML"),
        ('{"name": ', "begins like JSON and is not"),
        ("- a\n- b\n", "the whole file"),
        ("name: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("1: a\n", "a value that JSON does not have"),
    ],
)
def test_text_that_is_no_scenario_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, origin="file.yaml")
    assert reason in caught.value.message
    assert "file.yaml" in caught.value.message


def test_many_problems_are_listed_up_to_a_limit() -> None:
    message = _refusal({"name": "x", "responses": [{"nope": 1, "items": [_MESSAGE]} for _ in range(40)]})
    assert "responses[9].nope" in message
    assert "... and 30 more" in message


def test_an_unknown_name_lists_those_that_there_are() -> None:
    with pytest.raises(ScenarioError, match="one_message"):
        load_scenario("nothing_like_it")


def test_a_file_that_is_missing_or_no_text_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"missing\.yaml cannot be read"):
        load_scenario(tmp_path / "missing.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match=r"binary\.yaml cannot be read"):
        load_scenario(str(binary))


def test_dates_and_escaped_emoji_stay_text() -> None:
    yaml_text = "name: x\nresponses:\n  - items:\n      - {type: message, text: 2026-01-31}\n"
    json_text = '{"name": "x", "responses": [{"items": [{"type": "message", "text": "\\ud83d\\ude00"}]}]}'
    texts = [
        item.text
        for text in (yaml_text, json_text)
        for item in parse_scenario(text, origin="t").turns[0].responses[0].items
        if isinstance(item, Message)
    ]
    assert texts == ["2026-01-31", "😀"]


_texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text(" \na:-#\t")
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@example(text="\x85", arguments={" ": 1, "\x85": "\u2028"}, note=" \n patch\n \n")
@given(text=_texts, arguments=st.dictionaries(_texts, _json, max_size=3), note=_texts)
def test_a_written_scenario_reads_back_equal(text: str, arguments: dict[str, Any], note: str) -> None:
    items = (
        Message(type="message", text=text),
        FunctionCall(type="function_call", name="exec_command", arguments=arguments),
    )
    answer = Answer(items=items, usage=Usage(input=3), delay_ms=5)
    scenario = Scenario(name="x", description=text, turns=(Turn(note=note, responses=(answer,)),))
    assert parse_scenario(dump_scenario(scenario), origin="dumped") == scenario


def test_a_patch_is_written_as_a_block_that_people_can_edit() -> None:
    text = dump_scenario(load_scenario("demo"))
    assert text.count("input: |\n") == 5
    assert "      input: |\n        *** Begin Patch\n        *** Update File: pricing.py\n" in text


def test_a_saved_scenario_is_for_its_owner_only_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "saved.yaml"
    save_scenario(load_scenario("demo"), path)
    save_scenario(load_scenario("resume"), path)
    assert load_scenario(path) == load_scenario("resume")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
