"""A secret that comes in pieces is in no delta, and the text of an item is whole when the item is."""

from __future__ import annotations

import base64
import json
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cody.contracts.responses import ErrorInfo, FunctionCall, Message
from cody.contracts.stream_events import (
    ItemCancelled,
    ItemDelta,
    ItemDone,
    ItemError,
    ItemStart,
    Payload,
    ResponseDone,
    ResponseError,
    UsageUpdate,
)
from cody.pipeline.delta_redaction import DeltaRedactor
from cody.pipeline.hydrator import events_of
from cody.redaction import Redactor, Secret
from tests.pipeline.events import START
from tests.pipeline.publishing import ERROR, done
from tests.pipeline.serving import served, texts
from tests.pipeline.wire_server import WireServer, sse

SECRET = 'sk-"ä-very\nsecret'
FORMS = [SECRET, json.dumps(SECRET)[1:-1], base64.b64encode(SECRET.encode()).decode()]
REDACTOR = Redactor([Secret("KEY", SECRET)])


def cleaned(*payloads: Payload) -> list[Payload]:
    cleaning = DeltaRedactor(REDACTOR)
    return [told for payload in payloads for told in cleaning.clean(payload)]


def text_of(payloads: list[Payload], item_id: str = "i") -> str:
    said = ""
    for payload in payloads:
        match payload:
            case ItemStart(item_id=id) if id == item_id:
                said = payload.initial_content or payload.arguments or payload.code or ""
            case ItemDelta(item_id=id, delta_content=text) if id == item_id:
                said += text
    return said


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A text that may have secrets in it, and its pieces."""
    parts = draw(st.lists(st.sampled_from([*FORMS, "sk-", "s", "ä", "👋", " ", "word", SECRET[:-1]]), max_size=6))
    text = "".join(parts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return text, [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@settings(deadline=None)
@given(cut_texts(), st.sampled_from(["message", "function_call", "script_execution"]))
def test_whatever_the_cuts_the_deltas_make_the_clean_text(cut: tuple[str, list[str]], kind: str) -> None:
    text, pieces = cut
    field = {"message": "initial_content", "function_call": "arguments", "script_execution": "code"}[kind]
    start = ItemStart.model_validate({"item_id": "i", "item_type": kind, field: pieces[0]})
    deltas = [ItemDelta(item_id="i", delta_content=piece) for piece in pieces[1:]]
    told = cleaned(START, start, *deltas, done(START.response_id))
    assert text_of(told) == REDACTOR.clean_text(text)
    assert isinstance(told[-1], ResponseDone)


def test_what_was_held_back_comes_before_the_item_is_done() -> None:
    final = Message(id="i", content="begins: sk-")
    start, delta = ItemStart(item_id="i", item_type="message"), ItemDelta(item_id="i", delta_content="begins: sk-")
    told = cleaned(start, delta, ItemDone(item_id="i", final_item=final))
    assert [type(payload).__name__ for payload in told] == ["ItemStart", "ItemDelta", "ItemDelta", "ItemDone"]
    assert told[1:3] == [
        ItemDelta(item_id="i", delta_content="begins: "),
        ItemDelta(item_id="i", delta_content="sk-"),
    ]


def test_a_delta_of_nothing_but_a_beginning_is_not_told_yet() -> None:
    start = ItemStart(item_id="i", item_type="message")
    pieces: list[Payload] = [ItemDelta(item_id="i", delta_content=piece) for piece in ("sk-", '"ä-', "very\n")]
    assert cleaned(start, *pieces) == [start]
    told = cleaned(start, *pieces, ItemDelta(item_id="i", delta_content="secret!"))
    assert text_of(told) == "[redacted:KEY]!"


def test_a_secret_that_may_become_a_longer_one_waits_for_the_next_delta() -> None:
    cleaning = DeltaRedactor(Redactor([Secret("A", "abcdefgh"), Secret("B", "abcdefghijkl")]))
    payloads: list[Payload] = [ItemStart(item_id="i", item_type="message")]
    payloads += [ItemDelta(item_id="i", delta_content=piece) for piece in ("abcdefgh", "ijkl", " abcdefgh")]
    told = [one for payload in payloads for one in cleaning.clean(payload)]
    told += cleaning.clean(ItemDone(item_id="i", final_item=Message(id="i", content="")))
    assert text_of(told) == "[redacted:B] [redacted:A]"


@pytest.mark.parametrize(
    "end",
    [
        ItemError(item_id="i", error=ERROR),
        ItemCancelled(item_id="i"),
        ResponseError(response_id=START.response_id, error=ErrorInfo(code="stream_dropped", message="gone")),
    ],
)
def test_an_item_that_breaks_off_keeps_all_that_was_said(end: Payload) -> None:
    told = cleaned(ItemStart(item_id="i", item_type="message"), ItemDelta(item_id="i", delta_content="so sk-"), end)
    assert text_of(told) == "so sk-"
    assert told[-1] == end


def test_items_do_not_mix_and_other_events_pass() -> None:
    usage = UsageUpdate.model_validate({"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
    told = cleaned(
        ItemStart(item_id="i", item_type="message"),
        ItemStart(item_id="j", item_type="function_call", name="f", arguments='{"a": "sk-'),
        ItemDelta(item_id="i", delta_content="one sk-"),
        usage,
        ItemDelta(item_id="j", delta_content="x"),
        ItemDone(item_id="j", final_item=FunctionCall(id="j", name="f", arguments="{}", call_id="c")),
        ItemDelta(item_id="i", delta_content="two"),
    )
    assert (text_of(told, "i"), text_of(told, "j")) == ("one sk-two", '{"a": "sk-x')
    assert usage in told


def test_without_secrets_nothing_changes() -> None:
    delta = ItemDelta(item_id="i", delta_content="sk-")
    assert list(DeltaRedactor(Redactor([])).clean(delta)) == [delta]


async def test_a_secret_that_the_wire_brings_in_two_pieces_is_in_no_event_of_the_stream() -> None:
    """The recorded answer has ` grüß` and ` dich` in two deltas."""
    async with (
        WireServer(sse("openai", "message")) as wire,
        served(openai=wire, SOME_API_KEY="grüß dich") as one,
    ):
        told = await one.submit(prompt="Say hello")
        deltas = ""
        async with aclosing(events_of(one.http, told.run_id)) as events:
            async for _, event in events:
                if isinstance(event.payload, ItemDelta):
                    deltas += event.payload.delta_content
                assert "grü" not in event.model_dump_json()
        response = await one.ended(told.run_id)
    assert deltas == "Hello – [redacted:SOME_API_KEY] 👋🏽!"
    assert texts(response) == [deltas]
