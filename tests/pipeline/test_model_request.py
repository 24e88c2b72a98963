"""A thread's history as every provider takes it: what is said, and calls with exactly one output each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cody.contracts.responses import (
    ErrorInfo,
    ErrorItem,
    FunctionCall,
    FunctionCallOutput,
    Message,
    OutputItem,
    Reasoning,
    ScriptExecution,
    ScriptExecutionOutput,
)
from cody.pipeline.model_request import NO_OUTPUT, sendable, user_message
from cody.pipeline.providers.anthropic import anthropic_messages, anthropic_system
from cody.pipeline.providers.openai import openai_input
from tests.pipeline.asking import request
from tests.pipeline.strategies import items

ASKED = user_message("u", "Go")
SAID = Message(id="m", content="Gone")


def call(id: str, arguments: str = "{}") -> FunctionCall:
    return FunctionCall(id=id, name="add", arguments=arguments, call_id=f"call-{id}")


def output(id: str, text: str = "done") -> FunctionCallOutput:
    return FunctionCallOutput(id=f"{id}-out", origin="system", call_id=f"call-{id}", output=text, success=True)


def outline(history: Sequence[OutputItem]) -> str:
    """`?a` a call, `=a` its output, `-a` an output that was made up, anything else a message."""
    words = []
    for item in sendable(history):
        match item:
            case FunctionCall():
                words.append(f"?{item.id}")
            case FunctionCallOutput(output=text):
                words.append(
                    f"{'-' if text == NO_OUTPUT else '='}{item.id.removesuffix('-out').removesuffix('_output')}"
                )
            case Message():
                words.append(item.id)
    return " ".join(words)


@pytest.mark.parametrize(
    ("history", "sent"),
    [
        ([ASKED, call("a"), output("a"), SAID], "u ?a =a m"),
        ([call("a"), call("b"), output("b"), output("a")], "?a ?b =a =b"),
        ([call("a"), output("a"), call("b"), output("b")], "?a =a ?b =b"),
        ([call("a"), SAID, output("a")], "?a =a m"),
        ([call("a"), ASKED], "?a -a u"),
        ([call("a"), call("b"), output("b"), ASKED], "?a ?b -a =b u"),
        ([output("a"), ASKED], "u"),
        ([call("a"), output("a"), output("a"), ASKED], "?a =a u"),
        ([call("a"), output("a", "one"), call("a"), output("a", "two")], "?a =a ?a =a"),
        ([ASKED, Reasoning(id="r", content="hm"), SAID, ErrorItem(id="e", code="c", message="m")], "u m"),
        ([Message(id="blank", content=" \n"), ASKED], "u"),
    ],
)
def test_a_history_is_put_in_order(history: list[OutputItem], sent: str) -> None:
    assert outline(history) == sent


def test_a_script_is_a_call() -> None:
    error = ErrorInfo(code="c", message="boom")
    script = ScriptExecution(id="s", code="1/0")
    result = ScriptExecutionOutput(id="o", script_id="s", result="", success=False, error=error)
    assert sendable([script, result]) == [
        FunctionCall(id="s", name="script_execution", arguments='{"code":"1/0"}', call_id="s"),
        FunctionCallOutput(id="o", origin="system", call_id="s", output="boom", success=False),
    ]


def test_arguments_that_are_no_object_are_kept_as_text() -> None:
    messages = anthropic_messages(request(history=(call("a", "[1"), call("b", "[1]"), call("c", '{"x": 1}'))))
    blocks = [cast("dict[str, Any]", block) for block in messages[0]["content"]]
    assert [block["input"] for block in blocks] == [{"arguments": "[1"}, {"arguments": "[1]"}, {"x": 1}]


def test_what_the_system_says_has_its_place() -> None:
    history = (Message(id="s", origin="system", content="Be brief."), ASKED, SAID)
    asked = request("And now?", history=history, instructions="Be kind.")
    assert anthropic_system(asked) == "Be kind.\n\nBe brief."
    assert [message["role"] for message in anthropic_messages(asked)] == ["user", "assistant", "user"]
    assert openai_input(asked)[0] == {"type": "message", "role": "system", "content": "Be brief."}


def test_going_on_keeps_what_was_asked() -> None:
    first = request("2 + 2?", history=(SAID,))
    second = first.going_on([call("a"), output("a")])
    assert second.prompt is None
    assert outline(second.history) == f"m {first.opening.turn_id} ?a =a"
    assert outline(second.going_on([call("b")]).history) == f"m {first.opening.turn_id} ?a =a ?b -b"


@settings(deadline=None)
@given(st.lists(items(st.sampled_from(("a", "b", "c"))), max_size=12))
def test_every_call_is_followed_by_one_output(history: list[OutputItem]) -> None:
    waiting: list[str] = []
    for item in sendable(history):
        match item:
            case FunctionCall():
                waiting.append(item.call_id)
            case FunctionCallOutput():
                assert item.call_id == waiting.pop(0)
            case Message():
                assert not waiting
    assert not waiting


@settings(deadline=None)
@given(st.lists(items(st.sampled_from(("a", "b", "c"))), max_size=12))
def test_roles_alternate_and_results_come_first(history: list[OutputItem]) -> None:
    messages = anthropic_messages(request(history=history))
    roles = [message["role"] for message in messages]
    assert all(before != after for before, after in pairwise(roles))
    assert roles[-1] == "user"
    for message in messages:
        kinds = [block["type"] for block in message["content"] if isinstance(block, dict)]
        assert kinds == sorted(kinds, key=lambda kind: kind == "text" and message["role"] == "user")
