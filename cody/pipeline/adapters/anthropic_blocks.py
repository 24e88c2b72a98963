"""A content block of Anthropic's Messages API while it is streamed, and the item of a Response that it is. Pure.

Source: the block types of anthropic-python 2.11. Reading is by shape, so that server tools that are not known here
survive: `*_use` is a call (client or server runs it), `*_tool_result` the output of a server's. Anything else gives no
item. Signatures and citations are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cody.contracts.responses import FunctionCall, FunctionCallOutput, Message, OutputItem, Reasoning
from cody.contracts.stream_events import ItemStart
from cody.pipeline.json_values import json_text, object_of, objects_of, text_of

REDACTED = "[redacted]"
"""Stands for thinking that the provider sends encrypted only."""


@dataclass(slots=True)
class Block:
    """A block that gives an item. Its text is kept in pieces as they came: an emoji may be parted between two."""

    id: str
    data: dict[str, Any]
    pieces: list[str] = field(default_factory=list)

    def start(self) -> ItemStart:
        return ItemStart(
            item_id=self.id,
            item_type=self.item().type,
            initial_content="".join(self.pieces) or None,
            name=text_of(self.data.get("name")) or None,
        )

    def item(self) -> OutputItem:
        """The item with all that came of it so far."""
        text = "".join(self.pieces)
        match self.data["type"]:
            case "text":
                return Message(id=self.id, content=text)
            case "thinking":
                return Reasoning(id=self.id, content=text)
            case "redacted_thinking":
                return Reasoning(id=self.id, content=REDACTED)
            case kind if kind.endswith("_tool_result"):
                return _output(self.id, self.data)
            case _:
                arguments = text or json_text(object_of(self.data.get("input")))
                return FunctionCall(
                    id=self.id, name=text_of(self.data.get("name")), arguments=arguments, call_id=self.data["id"]
                )


def block_of(data: dict[str, Any], id: str) -> Block | None:
    """The block as content_block_start tells it; `id` is taken unless it has one of its own. None = gives no item."""
    match text_of(data.get("type")):
        case "text" | "thinking" as kind:
            initial = text_of(data.get(kind))
            return Block(id, data, [initial] if initial else [])
        case "redacted_thinking":
            return Block(id, data)
        case kind if kind.endswith("_tool_result") and text_of(data.get("tool_use_id")):
            return Block(id, data)
        case kind if kind.endswith("_use") and text_of(data.get("id")):
            return Block(data["id"], data)
        case _:
            return None


def _output(id: str, data: dict[str, Any]) -> FunctionCallOutput:
    content = data.get("content")
    failed = data.get("is_error") is True or text_of(object_of(content).get("type")).endswith("_error")
    texts = [text_of(part.get("text")) for part in objects_of(content) if part.get("type") == "text"]
    output = content if isinstance(content, str) else "\n".join(texts) or json_text(content)
    return FunctionCallOutput(id=id, origin="system", call_id=data["tool_use_id"], output=output, success=not failed)
