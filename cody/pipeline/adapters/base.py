"""What an adapter is: a translator of one answer, from a provider's chunks to payloads of StreamEvents. Pure.

A chunk in, events out: nothing waits for the end of a step. Whatever happens to the provider's stream, the payloads of
an adapter begin with one response_start and end with one response_done or response_error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from pydantic import ValidationError

from cody.contracts.responses import ErrorInfo, OutputItem
from cody.contracts.stream_events import (
    TERMINAL_PAYLOADS,
    ItemDone,
    ItemStart,
    Payload,
    ResponseError,
    ResponseStart,
)
from cody.pipeline.problems import malformed_chunk, stream_dropped

_ChunkIn = TypeVar("_ChunkIn", contravariant=True)
_Chunk = TypeVar("_Chunk")


class Adapter(Protocol[_ChunkIn]):
    """The translator of one answer; a new one for each."""

    @property
    def ended(self) -> bool:
        """Whether the last payload of the answer was given; nothing comes after it."""

    def start(self) -> list[Payload]:
        """response_start, once; to be published before the provider is asked."""

    def feed(self, chunk: _ChunkIn) -> list[Payload]:
        """What the chunk tells; nothing when it tells nothing new, or is of a kind that is not known."""

    def end(self) -> list[Payload]:
        """To be called when the provider's stream has ended: an answer that has not ended breaks off in an error."""

    def fail(self, error: ErrorInfo) -> list[Payload]:
        """To be called when the stream can't be had or read any further: the answer ends with this error."""


class Translator(ABC, Generic[_Chunk]):
    """The part that all adapters share: the first payload, the last one, and nothing after it."""

    def __init__(self, opening: ResponseStart) -> None:
        self._opening = opening
        self._started = False
        self._ended = False

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def response_id(self) -> str:
        return self._opening.response_id

    def start(self) -> list[Payload]:
        if self._started:
            return []
        self._started = True
        return [self._opening]

    def feed(self, chunk: _Chunk) -> list[Payload]:
        if self._ended:
            return []
        try:
            told = list(self._translate(chunk))
        except ValidationError as error:
            # A value that the contract has no room for, like a negative count of tokens: the stream can't be trusted.
            problem = error.errors(include_input=False, include_url=False)[0]
            return self.fail(malformed_chunk(f"{error.title}: {problem['msg']}"))
        payloads = [*self.start(), *told]
        self._ended = isinstance(payloads[-1], TERMINAL_PAYLOADS) if payloads else False
        return payloads

    def end(self) -> list[Payload]:
        return self.fail(stream_dropped("the provider's stream ended before the answer did"))

    def fail(self, error: ErrorInfo) -> list[Payload]:
        if self._ended:
            return []
        self._ended = True
        return [*self.start(), ResponseError(response_id=self.response_id, error=error)]

    def _malformed(self, what: str) -> ResponseError:
        """The end of an answer whose stream can't be understood any further."""
        return ResponseError(response_id=self.response_id, error=malformed_chunk(f"the provider sent {what}"))

    @abstractmethod
    def _translate(self, chunk: _Chunk) -> Iterator[Payload]:
        """The payloads of a chunk; a terminal one is the last."""


def whole_item(item: OutputItem) -> Iterator[Payload]:
    """The events of an item that comes in one piece."""
    yield ItemStart(item_id=item.id, item_type=item.type)
    yield ItemDone(item_id=item.id, final_item=item)
