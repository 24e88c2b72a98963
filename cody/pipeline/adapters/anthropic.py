"""Anthropic's Messages API: its stream of events as payloads of a Response. Pure.

Source: the event types of anthropic-python 2.11; the SDK builds them without validation, so each field is looked at
before it is used. An event or delta of an unknown type says nothing; one of a known type that lacks its fields ends the
answer as malformed. `ping` and `error` never get here: the SDK drops the first and raises the second.
"""

from __future__ import annotations

from collections.abc import Iterator

from anthropic.types import (
    InputJSONDelta,
    RawContentBlockDeltaEvent,
    RawContentBlockStartEvent,
    RawContentBlockStopEvent,
    RawMessageDeltaEvent,
    RawMessageStartEvent,
    RawMessageStopEvent,
    RawMessageStreamEvent,
    TextDelta,
    ThinkingDelta,
)

from cody.contracts.responses import (
    FINISH_MAX_OUTPUT_TOKENS,
    FINISH_REFUSAL,
    FINISH_STOP,
    FINISH_TOOL_CALLS,
    Usage,
)
from cody.contracts.stream_events import (
    ItemDelta,
    ItemDone,
    Payload,
    ResponseDone,
    ResponseStart,
    UsageUpdate,
)
from cody.pipeline.adapters.anthropic_blocks import Block, block_of
from cody.pipeline.adapters.base import Translator
from cody.pipeline.json_values import count_of, object_of, text_of

_READ = frozenset(
    {
        "content_block_delta",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_start",
        "message_stop",
    }
)
_FINISH = {
    "end_turn": FINISH_STOP,
    "stop_sequence": FINISH_STOP,
    "tool_use": FINISH_TOOL_CALLS,
    "max_tokens": FINISH_MAX_OUTPUT_TOKENS,
    "refusal": FINISH_REFUSAL,
}
_PROMPT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class AnthropicAdapter(Translator[RawMessageStreamEvent]):
    """Translates one answer: feed it what `client.messages.create(stream=True)` yields."""

    def __init__(self, opening: ResponseStart) -> None:
        super().__init__(opening)
        self._message_id = opening.response_id
        self._open: dict[int, Block | None] = {}
        """By the block's index; None for a block that gives no item."""
        self._counts: dict[str, int] = {}
        self._stop_reason: str | None = None

    def _translate(self, chunk: RawMessageStreamEvent) -> Iterator[Payload]:
        kind = getattr(chunk, "type", None)
        if not isinstance(kind, str):
            yield self._malformed("an event without a type")
            return
        if kind not in _READ:
            return
        match chunk:
            case RawMessageStartEvent(message=message):
                data = object_of(message)
                self._message_id = text_of(data.get("id")) or self._message_id
                yield from self._count(data.get("usage"))
            case RawContentBlockStartEvent(index=int(index), content_block=content):
                block = block_of(object_of(content), f"{self._message_id}_{index}")
                self._open[index] = block
                if block is not None:
                    yield block.start()
            case RawContentBlockDeltaEvent(index=int(index), delta=delta) if index in self._open:
                yield from self._extend(self._open[index], delta)
            case RawContentBlockStopEvent(index=int(index)) if index in self._open:
                yield from self._finish(self._open.pop(index))
            case RawMessageDeltaEvent(delta=delta, usage=usage):
                self._stop_reason = text_of(object_of(delta).get("stop_reason")) or self._stop_reason
                yield from self._count(usage)
            case RawMessageStopEvent():
                yield from self._complete()
            case _:
                yield self._malformed(f"an event of type {kind} that lacks what it needs")

    def _extend(self, block: Block | None, delta: object) -> Iterator[Payload]:
        match delta:
            case TextDelta(type="text_delta", text=str(text)):
                pass
            case ThinkingDelta(type="thinking_delta", thinking=str(text)):
                pass
            case InputJSONDelta(type="input_json_delta", partial_json=str(text)):
                pass
            case _:
                return
        if block is not None and text:
            block.pieces.append(text)
            yield ItemDelta(item_id=block.id, delta_content=text)

    def _finish(self, block: Block | None) -> Iterator[Payload]:
        if block is not None:
            yield ItemDone(item_id=block.id, final_item=block.item())

    def _complete(self) -> Iterator[Payload]:
        for index in list(self._open):
            yield from self._finish(self._open.pop(index))
        reason = self._stop_reason or FINISH_STOP
        yield ResponseDone(
            response_id=self.response_id,
            status="complete",
            usage=self._usage() if self._counts else None,
            finish_reason=_FINISH.get(reason, reason),
        )

    def _count(self, usage: object) -> Iterator[Payload]:
        """Take in what message_start or message_delta tells: figures are cumulative, and absent ones still hold."""
        told = object_of(usage)
        names = (*_PROMPT_COUNTS, "output_tokens")
        known = {name: count_of(told[name]) for name in names if told.get(name) is not None}
        if known:
            self._counts |= known
            yield UsageUpdate(usage=self._usage())

    def _usage(self) -> Usage:
        prompt = sum(self._counts.get(name, 0) for name in _PROMPT_COUNTS)
        completion = self._counts.get("output_tokens", 0)
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
