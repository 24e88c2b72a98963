"""Asking a provider that plays on loopback, through the real SDK."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from cody.contracts.stream_events import Payload
from cody.pipeline.model_request import ModelRequest, Tool
from cody.pipeline.providers.registry import open_provider
from tests.pipeline.events import START
from tests.pipeline.wire_server import WireServer

KEY = "sk-wrong-key"
ADD = Tool(
    name="add",
    description="Add two numbers",
    parameters={"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
)


def request(prompt: str | None = "Hello", **fields: Any) -> ModelRequest:
    return ModelRequest(opening=START, prompt=prompt, **fields)


async def ask(
    provider_id: str, wire: WireServer, asked: ModelRequest | None = None, *, timeout_s: float = 20.0
) -> list[Payload]:
    return await ask_at(provider_id, wire.url, asked, timeout_s=timeout_s)


async def ask_at(
    provider_id: str, url: str, asked: ModelRequest | None = None, *, timeout_s: float = 20.0
) -> list[Payload]:
    """All payloads of the answer; the provider is opened for it and closed after it."""
    provider = await open_provider(provider_id, api_key=KEY, base_url=url, timeout_s=timeout_s)
    try:
        async with aclosing(provider.stream(asked or request())) as payloads:
            return [payload async for payload in payloads]
    finally:
        await provider.aclose()
