"""What a request asks for, as far as replay decides on it. Pure.

Learned from codex 0.163.0 (`codex exec`): every request carries the whole history in `input`; the headers name the
thread (`thread-id`) and, as JSON in `x-codex-turn-metadata`, the turn (`turn_id`), also when a thread is resumed.
Clients without these headers (the official SDKs) are told apart by the history up to their last user message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


class NotUnderstood(Exception):
    """The request is no request of the Responses API that can be replayed; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for an answer."""

    thread_id: str | None
    turn_key: str
    """Equal for all requests of one turn, different for two turns of a thread."""
    has_turn_id: bool
    """True when the client itself named the turn: then equal keys cannot be a new turn that looks like an old one."""
    prompt: str
    """The last user message."""
    outputs: int
    """Tool outputs in the whole history."""
    outputs_before_prompt: int
    """Those of them that stand before the last user message: they belong to earlier turns of the thread."""
    resumed: bool
    """True when the model has spoken before the last user message."""
    model: str
    stream: bool


def read_request(headers: Mapping[str, str], body: bytes) -> Asked:
    """What the request asks for; `headers` by lower-case name. Raises NotUnderstood."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotUnderstood(f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise NotUnderstood("the body is not a JSON object")
    if data.get("previous_response_id") is not None:
        raise NotUnderstood("previous_response_id is not supported, nothing is stored here: send the whole input")
    history = _history(data.get("input"))
    last_user = max((at for at, item in enumerate(history) if item.get("role") == "user"), default=-1)
    turn_id = _turn_id(headers)
    thread_id = headers.get("thread-id") or _text(data.get("prompt_cache_key"))
    return Asked(
        thread_id=thread_id,
        turn_key=turn_id or _digest([thread_id, *map(_identity, history[: last_user + 1])]),
        has_turn_id=turn_id is not None,
        prompt=_content_text(history[last_user]) if last_user >= 0 else "",
        outputs=_outputs(history),
        outputs_before_prompt=_outputs(history[: max(last_user, 0)]),
        resumed=any(_is_from_model(item) for item in history[: max(last_user, 0)]),
        model=_text(data.get("model")) or "unknown",
        stream=data.get("stream") is True,
    )


def _history(value: Any) -> list[dict[str, Any]]:
    match value:
        case str():
            return [{"type": "message", "role": "user", "content": value}]
        case list() if all(isinstance(item, dict) for item in value):
            return value
        case _:
            raise NotUnderstood("`input` is neither a text nor a list of items")


def _identity(item: Mapping[str, Any]) -> list[str]:
    """What stays the same of an item when a client writes it in another of the API's forms."""
    if "role" in item:
        return [str(item["role"]), _content_text(item)]
    return [str(item.get("type")), str(item.get("call_id"))]


def _is_from_model(item: Mapping[str, Any]) -> bool:
    kind = item.get("type", "message")
    return item.get("role") == "assistant" or kind == "reasoning" or str(kind).endswith("_call")


def _outputs(history: list[dict[str, Any]]) -> int:
    return sum(str(item.get("type")).endswith("_output") and item.get("call_id") is not None for item in history)


def _content_text(item: Mapping[str, Any]) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _turn_id(headers: Mapping[str, str]) -> str | None:
    try:
        metadata = orjson.loads(headers.get("x-codex-turn-metadata", "null"))
    except orjson.JSONDecodeError:
        return None
    return _text(metadata.get("turn_id")) if isinstance(metadata, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value)).hexdigest()
