"""Answers in which the model calls a tool of Cody's: the recorded ones of both providers, with another call in them."""

from __future__ import annotations

import json
from typing import Any

from tests.pipeline.wire_server import Reply, sse

AFTER_CALL = {"openai": "after_function_call", "anthropic": "after_tool_use"}
_CALLS = {"openai": ("function_call", "call_Qm4Zr7TtVw1XkY2b"), "anthropic": ("tool_use", "toolu_01T1x1fJ34qAmk2t")}
_IDS = {"openai": b"fc_68f1a0c6f1c881930", "anthropic": b"msg_01Kf6sY5oRf7"}


def calling(provider_id: str, name: str, number: int = 1, **arguments: Any) -> Reply:
    """The model's answer that it wants this called. `number`: tells the calls of one Response apart."""
    fixture, call_id = _CALLS[provider_id]
    text = json.dumps(arguments)
    blocks: list[str] = []
    told = False
    for block in sse(provider_id, fixture).body.decode().split("\n\n"):
        head, found, data = block.partition("data: ")
        if not found:
            blocks.append(block)
            continue
        value = json.loads(data)
        if _is_delta(value):
            # The first one brings all of it: what stood in the others was another call's.
            if told:
                continue
            told = True
        _rename(value, name, text)
        blocks.append(f"{head}data: {json.dumps(value)}")
    body = "\n\n".join(blocks).encode()
    body = body.replace(call_id.encode(), b"%b_%d" % (call_id.encode(), number))
    return Reply(body.replace(_IDS[provider_id], b"%b_%d" % (_IDS[provider_id], number)))


def after_call(provider_id: str) -> Reply:
    """The model's answer that is a message, once it has the output."""
    return sse(provider_id, AFTER_CALL[provider_id])


def _is_delta(value: dict[str, Any]) -> bool:
    return value["type"] in {"response.function_call_arguments.delta", "content_block_delta"}


def _rename(value: dict[str, Any], name: str, arguments: str) -> None:
    if value["type"] == "response.function_call_arguments.delta":
        value["delta"] = arguments
    if value["type"] == "content_block_delta":
        value["delta"]["partial_json"] = arguments
    for item in [value, value.get("item"), value.get("content_block"), *value.get("response", {}).get("output", [])]:
        if not isinstance(item, dict):
            continue
        if item.get("type") in {"function_call", "tool_use"}:
            item["name"] = name
        if item.get("arguments"):
            item["arguments"] = arguments
