"""A model's endpoint on loopback that plays one recorded answer, byte for byte, to the real SDKs: no key, no network.

The answers were taken from OpenAI's Responses API and Anthropic's Messages API in 2026.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

ANSWER = "The pipeline works."
MODELS = {"openai": "gpt-5.5", "anthropic": "claude-sonnet-5"}
"""What is asked where no model is named."""


@asynccontextmanager
async def replaying(provider_id: str) -> AsyncIterator[str]:
    """The base URL of an endpoint that answers every request of this provider's SDK with ANSWER."""
    body = "".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _EVENTS[provider_id]()
    ).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            sizes = [line.partition(":")[2] for line in head.split("\r\n") if line.startswith("content-length:")]
            await reader.readexactly(int(sizes[0]) if sizes else 0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"


def _openai() -> list[dict[str, Any]]:
    text = {"type": "output_text", "text": ANSWER, "annotations": []}
    item = {"id": "msg_verify", "type": "message", "status": "completed", "role": "assistant", "content": [text]}
    begun = {"id": "resp_verify", "object": "response", "created_at": 0, "status": "in_progress", "model": "gpt-5.5"}
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}  # type: ignore[dict-item]
    place = {"item_id": "msg_verify", "output_index": 0, "content_index": 0}
    words = [f"{word} " for word in ANSWER.split(" ")[:-1]] + [ANSWER.split(" ")[-1]]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**begun, "output": []}},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **place, "part": {**text, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": word} for word in words),
        {"type": "response.output_text.done", **place, "text": ANSWER},
        {"type": "response.content_part.done", **place, "part": text},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**begun, "status": "completed", "output": [item], "usage": usage}},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _anthropic() -> list[dict[str, Any]]:
    message = {"id": "msg_verify", "type": "message", "role": "assistant", "model": "claude-sonnet-5", "content": []}
    words = [f"{word} " for word in ANSWER.split(" ")[:-1]] + [ANSWER.split(" ")[-1]]
    return [
        {
            "type": "message_start",
            "message": {
                **message,
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 9, "output_tokens": 1},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 4},
        },
        {"type": "message_stop"},
    ]


_EVENTS = {"openai": _openai, "anthropic": _anthropic}
