"""An answer as the bytes of the Responses API: server-sent events, or one JSON object. Pure.

Events and fields are those that openai-python 3.52 has types for, in the order that its stream reader asks for: it
refuses a delta to an item or part that was not added before. codex 0.163.0 would do with response.output_item.done and
response.completed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from harness.replay.scenario import (
    Answer,
    CustomToolCall,
    FunctionCall,
    HttpError,
    Item,
    Message,
    RawItem,
    Reasoning,
    Usage,
    awaits_output,
)

_MIN_DELTA_CHARS = 24
_MAX_DELTAS = 200
"""An item of a megabyte is not sent in pieces of a word: each event costs some 200 bytes around it."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one answer from another on the wire. `key` goes into every id: a new one for each answer."""

    key: str
    created_at: int
    """Seconds since 1970."""
    model: str


@dataclass(frozen=True, slots=True)
class Beat:
    """A moment of a stream: wait `pause_ms`, send `data`, then drop the connection if `cut`. `last`: the end."""

    pause_ms: int
    data: bytes
    cut: bool = False
    last: bool = False


def error_body(error: HttpError) -> bytes:
    """The body of an HTTP error, in the shape of OpenAI's unless the scenario gives its own."""
    match error.body:
        case None:
            return error_object(error.message, kind=error.type, code=error.code)
        case str():
            return error.body.encode()
        case _:
            return orjson.dumps(error.body)


def error_object(message: str, *, kind: str, code: str | None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def beats(answer: Answer, stamp: Stamp) -> Iterator[Beat]:
    """The answer as a stream of events, piece by piece. Not for answers that are HTTP errors."""
    writer = _Writer()
    opening = _response(answer, stamp, status="in_progress")
    yield Beat(0, writer.event("response.created", response=opening))
    yield Beat(0, writer.event("response.in_progress", response=opening))
    for index, item in enumerate(answer.delivered):
        pieces = list(_item_events(writer, index, item, wire_item(item, stamp, index)))
        for position, piece in enumerate(pieces):
            yield Beat(answer.item_delay_ms if position == 0 else answer.delta_delay_ms, piece)
    if answer.drop is not None:
        yield Beat(0, b"", cut=True, last=True)
        return
    status = _end_status(answer)
    yield Beat(0, writer.event(f"response.{status}", response=_response(answer, stamp, status=status)), last=True)


def whole(answer: Answer, stamp: Stamp) -> bytes:
    """The answer to a request that asked for no stream."""
    return orjson.dumps(_response(answer, stamp, status=_end_status(answer)))


def wire_item(item: Item, stamp: Stamp, index: int) -> Json:
    """The item as the API shows it when it is complete."""
    key = f"{stamp.key}_{index}"
    match item:
        case Message():
            message = {
                "id": f"msg_{key}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": item.text, "annotations": [], "logprobs": []}],
            }
            return message if item.phase is None else message | {"phase": item.phase}
        case Reasoning():
            summary = [{"type": "summary_text", "text": text} for text in item.summary]
            return {"id": f"rs_{key}", "type": "reasoning", "summary": summary}
        case FunctionCall():
            call = {
                "id": f"fc_{key}",
                "type": "function_call",
                "status": "completed",
                "arguments": _arguments(item),
                "call_id": f"call_{key}",
                "name": item.name,
            }
            return call if item.namespace is None else call | {"namespace": item.namespace}
        case CustomToolCall():
            return {
                "id": f"ctc_{key}",
                "type": "custom_tool_call",
                "call_id": f"call_{key}",
                "name": item.name,
                "input": item.input,
            }
        case RawItem():
            raw = dict(item.item) | {"id": f"item_{key}"}
            return raw | {"call_id": f"call_{key}"} if awaits_output(item) else raw


def _arguments(call: FunctionCall) -> str:
    return call.arguments if isinstance(call.arguments, str) else orjson.dumps(call.arguments).decode()


class _Writer:
    """Numbers the events of one stream."""

    def __init__(self) -> None:
        self._number = 0

    def event(self, kind: str, **fields: Any) -> bytes:
        data = orjson.dumps({"type": kind, **fields, "sequence_number": self._number})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _item_events(writer: _Writer, index: int, item: Item, done: Json) -> Iterator[bytes]:
    """One item's events; the first and the last are output_item.added and .done."""
    blank = done | ({"status": "in_progress"} if "status" in done else {})
    at: Json = {"output_index": index, "item_id": done["id"]}
    match item:
        case Message():
            yield writer.event("response.output_item.added", output_index=index, item=blank | {"content": []})
            yield from _message_events(writer, item, at)
        case Reasoning():
            yield writer.event("response.output_item.added", output_index=index, item=blank | {"summary": []})
            yield from _reasoning_events(writer, item, at)
        case FunctionCall():
            yield writer.event("response.output_item.added", output_index=index, item=blank | {"arguments": ""})
            for delta in _deltas(done["arguments"]):
                yield writer.event("response.function_call_arguments.delta", **at, delta=delta)
            yield writer.event("response.function_call_arguments.done", **at, arguments=done["arguments"])
        case CustomToolCall():
            yield writer.event("response.output_item.added", output_index=index, item=blank | {"input": ""})
            for delta in _deltas(item.input):
                yield writer.event("response.custom_tool_call_input.delta", **at, delta=delta)
            yield writer.event("response.custom_tool_call_input.done", **at, input=item.input)
        case RawItem():
            yield writer.event("response.output_item.added", output_index=index, item=blank)
    yield writer.event("response.output_item.done", output_index=index, item=done)


def _message_events(writer: _Writer, message: Message, at: Json) -> Iterator[bytes]:
    at = at | {"content_index": 0}
    part = {"type": "output_text", "annotations": [], "logprobs": []}
    yield writer.event("response.content_part.added", **at, part=part | {"text": ""})
    for delta in _deltas(message.text):
        yield writer.event("response.output_text.delta", **at, delta=delta, logprobs=[])
    yield writer.event("response.output_text.done", **at, text=message.text, logprobs=[])
    yield writer.event("response.content_part.done", **at, part=part | {"text": message.text})


def _reasoning_events(writer: _Writer, reasoning: Reasoning, at: Json) -> Iterator[bytes]:
    for number, text in enumerate(reasoning.summary):
        here = at | {"summary_index": number}
        yield writer.event("response.reasoning_summary_part.added", **here, part={"type": "summary_text", "text": ""})
        for delta in _deltas(text):
            yield writer.event("response.reasoning_summary_text.delta", **here, delta=delta)
        yield writer.event("response.reasoning_summary_text.done", **here, text=text)
        yield writer.event("response.reasoning_summary_part.done", **here, part={"type": "summary_text", "text": text})


def _deltas(text: str) -> Iterator[str]:
    size = max(_MIN_DELTA_CHARS, math.ceil(len(text) / _MAX_DELTAS))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def _end_status(answer: Answer) -> str:
    if answer.failed is not None:
        return "failed"
    return "completed" if answer.incomplete is None else "incomplete"


def _response(answer: Answer, stamp: Stamp, *, status: str) -> Json:
    """The response object of the API in the given status; items and usage only at the end."""
    ended = status != "in_progress"
    failed = None if answer.failed is None else {"code": answer.failed.code, "message": answer.failed.message}
    output = [wire_item(item, stamp, index) for index, item in enumerate(answer.delivered)]
    return {
        "id": f"resp_{stamp.key}",
        "object": "response",
        "created_at": stamp.created_at,
        "status": status,
        "error": failed if status == "failed" else None,
        "incomplete_details": {"reason": answer.incomplete} if status == "incomplete" else None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": stamp.model,
        "output": output if ended else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(answer.usage) if ended and answer.usage is not None else None,
        "user": None,
    }


def _usage(usage: Usage) -> Mapping[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
