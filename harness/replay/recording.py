"""An upstream's answers read back into a scenario. Pure: bytes and requests in, `Answer`, `Turn` and `Scenario` out.

The inverse of wire.py. Ids and encrypted reasoning are left out: replay makes its own ids, and cannot use the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from harness.replay.asked import Asked
from harness.replay.scenario import (
    MAX_DELAY_MS,
    Answer,
    CustomToolCall,
    Failure,
    FunctionCall,
    HttpError,
    Item,
    Message,
    RawItem,
    Reasoning,
    Scenario,
    Turn,
    Usage,
)

MIN_SECRET_CHARS = 8
"""Shorter keys are placeholders such as `x`; replacing them would tear words apart."""
REDACTED = "[redacted]"

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
_KEPT_HEADERS = frozenset({"retry-after", "retry-after-ms"})
"""What clients act upon. The others are the upstream's own business, request ids and organisation included."""


class EventReader:
    """Server-sent events from bytes that come in any pieces: `feed` gives the JSON objects that became whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                event = _json_object(b"\n".join(self._data))
                self._data.clear()
                if event is not None:
                    events.append(event)
        return events


class AnswerReader:
    """One streamed answer, event by event; times are in seconds of any clock that only goes forward."""

    def __init__(self, asked_at_s: float) -> None:
        self._asked_at_s = asked_at_s
        self._first_item_s: float | None = None
        self._last_item_s = asked_at_s
        self._items: list[Item] = []

    def take(self, event: dict[str, Any], now_s: float) -> Answer | None:
        """The answer, once this event ended it."""
        kind = event.get("type")
        if kind == "response.output_item.done" and isinstance(event.get("item"), dict):
            self._first_item_s = self._first_item_s or now_s
            self._last_item_s = now_s
            self._items.append(item_from_wire(event["item"]))
        if kind not in _ENDS:
            return None
        response = event.get("response") if isinstance(event.get("response"), dict) else {}
        return _ended_answer(str(kind), response or event, self._items, self._pace())

    def cut(self) -> Answer:
        """The answer when the stream ended without its last event."""
        return Answer(items=tuple(self._items), drop=len(self._items), **self._pace())

    def _pace(self) -> dict[str, Any]:
        first_s = self._first_item_s or self._last_item_s
        gaps = max(len(self._items) - 1, 1)
        return {
            "delay_ms": _milliseconds(first_s - self._asked_at_s),
            "item_delay_ms": _milliseconds((self._last_item_s - first_s) / gaps),
        }


def answer_from_body(body: bytes, delay_s: float) -> Answer | None:
    """The answer that came as one JSON object, to a request without `stream`; None when it is none."""
    response = _json_object(body)
    if response is None:
        return None
    output = response.get("output")
    items = [item_from_wire(item) for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    return _ended_answer(f"response.{response.get('status')}", response, items, {"delay_ms": _milliseconds(delay_s)})


def answer_from_error(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
    """The answer that was an HTTP error."""
    kept = {name.lower(): value for name, value in headers if name.lower() in _KEPT_HEADERS}
    text = _json_object(body) or body.decode(errors="replace")
    return Answer(error=HttpError(status=status, headers=kept, body=text))


def _ended_answer(kind: str, response: dict[str, Any], items: list[Item], pace: dict[str, Any]) -> Answer:
    common: dict[str, Any] = {"items": tuple(items), "usage": _usage(response.get("usage")), **pace}
    match kind:
        case "response.failed" | "error":
            error = response.get("error") if isinstance(response.get("error"), dict) else response
            code, message = (error or {}).get("code"), (error or {}).get("message")
            return Answer(**common, failed=Failure(code=str(code or "server_error"), message=str(message or "")))
        case "response.incomplete":
            reason = (response.get("incomplete_details") or {}).get("reason")
            return Answer(**common, incomplete=str(reason or "unknown"))
        case _:
            if not items and common["usage"] is None:
                common["usage"] = Usage()
            return Answer(**common)


def item_from_wire(item: dict[str, Any]) -> Item:
    """The item as a scenario holds it; what has no shape of its own there is kept raw."""
    match item:
        case {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": str(text)}]}:
            phase = item.get("phase")
            return Message(type="message", text=text, phase=phase if isinstance(phase, str) else None)
        case {"type": "reasoning", "summary": list(parts)}:
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            return Reasoning(type="reasoning", summary=tuple(text for text in texts if isinstance(text, str)))
        case {"type": "function_call", "name": str(name), "arguments": str(arguments)} if name:
            space = item.get("namespace")
            return FunctionCall(
                type="function_call",
                name=name,
                arguments=_readable_arguments(arguments),
                namespace=space if isinstance(space, str) else None,
            )
        case {"type": "custom_tool_call", "name": str(name), "input": str(text)} if name:
            return CustomToolCall(type="custom_tool_call", name=name, input=text)
        case _:
            kept = {key: value for key, value in item.items() if key not in ("id", "encrypted_content")}
            return RawItem(type="raw", item={"type": "unknown"} | kept)


def _readable_arguments(text: str) -> dict[str, Any] | str:
    """The arguments as a mapping, which people can read and edit; as they were when they are no JSON object."""
    return _json_object(text.encode()) or text


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    sent, made = value.get("input_tokens") or 0, value.get("output_tokens") or 0
    details = value.get("input_tokens_details") or {}
    cached = min(details.get("cached_tokens") or 0, sent)
    cache_write = min(details.get("cache_write_tokens") or 0, sent - cached)
    reasoning = min((value.get("output_tokens_details") or {}).get("reasoning_tokens") or 0, made)
    return Usage(input=sent, cached=cached, cache_write=cache_write, output=made, reasoning=reasoning)


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _milliseconds(seconds: float) -> int:
    return min(max(round(seconds * 1000), 0), MAX_DELAY_MS)


class Tape:
    """Answers in the turns that they were given in, in the order in which the turns began."""

    def __init__(self) -> None:
        self._turns: dict[str, list[Answer]] = {}

    def begin(self, asked: Asked) -> None:
        """Note the request, so that its turn keeps its place even when its answer comes after another turn's."""
        self._turns.setdefault(asked.turn_key, [])

    def add(self, asked: Asked, answer: Answer, secrets: Iterable[str]) -> None:
        """Keep the answer, without the secrets of the client who got it."""
        self._turns[asked.turn_key].append(_without(answer, [s for s in secrets if len(s) >= MIN_SECRET_CHARS]))

    def scenario(self, name: str, description: str) -> Scenario | None:
        """What was recorded so far; None when no answer was."""
        turns = tuple(Turn(responses=tuple(answers)) for answers in self._turns.values() if answers)
        return Scenario(name=name, description=description, turns=turns) if turns else None


def _without(answer: Answer, secrets: list[str]) -> Answer:
    return Answer.model_validate_json(orjson.dumps(_redacted(answer.model_dump(mode="json"), secrets)))


def _redacted(value: Any, secrets: list[str]) -> Any:
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, REDACTED)
            return value
        case list():
            return [_redacted(entry, secrets) for entry in value]
        case dict():
            return {_redacted(key, secrets): _redacted(entry, secrets) for key, entry in value.items()}
        case _:
            return value
