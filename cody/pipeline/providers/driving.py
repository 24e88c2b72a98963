"""Driving a provider's stream through an adapter: the effects that every provider shares.

Nothing is sent twice: the SDKs' own retries are off, and whether to ask again is for the reader of the error to decide.
However the stream ends, the answer ends: in the provider's own last event, or in a response_error.
"""

from __future__ import annotations

import email.utils
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import httpx2
import structlog

from cody.contracts.responses import ErrorInfo
from cody.contracts.stream_events import Payload
from cody.pipeline.adapters.base import Adapter
from cody.pipeline.model_request import ModelRequest
from cody.pipeline.problems import (
    CONNECTION_FAILED,
    INTERNAL_ERROR,
    STREAM_DROPPED,
    TIMEOUT,
    malformed_chunk,
    problem,
)

log = structlog.get_logger(__name__)

DEFAULT_TIMEOUT_S = 600.0
"""Longest silence of a provider: reasoning models are known to think for minutes before the first event."""
CONNECT_TIMEOUT_S = 10.0
_HIDDEN = "[redacted]"

_Chunk = TypeVar("_Chunk", covariant=True)
_Fed = TypeVar("_Fed")


class ChunkStream(Protocol[_Chunk]):
    """A stream of a provider's SDK: iterable once; closing it closes the HTTP response."""

    def __aiter__(self) -> AsyncIterator[_Chunk]: ...

    async def close(self) -> None: ...


class Explain(Protocol):
    def __call__(self, error: Exception, *, answering: bool) -> ErrorInfo | None:
        """What an error of the SDK means; None for one that is not the SDK's. `answering`: the answer had begun."""


class Provider(Protocol):
    """A model's provider, ready to be asked."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[Payload]:
        """The answer's payloads, from response_start to its end. To abort: close the generator."""

    async def aclose(self) -> None:
        """Give the connections back."""


async def drive(
    adapter: Adapter[_Fed],
    open_stream: Callable[[], Awaitable[ChunkStream[_Fed]]],
    explain: Explain,
    secret: str | None,
) -> AsyncGenerator[Payload]:
    """What the adapter makes of the stream.

    `secret` (the key) is taken out of the messages of errors: some providers and proxies quote it.
    """
    for payload in adapter.start():
        yield payload
    answering = False
    try:
        stream = await open_stream()
        answering = True
        try:
            async for chunk in stream:
                for payload in adapter.feed(chunk):
                    yield payload
                if adapter.ended:
                    break
        finally:
            await stream.close()
        last = adapter.end()
    except Exception as error:
        # The boundary of an answer: whatever happened, its readers must see it end.
        known = explain(error, answering=answering) or _explained(error, answering=answering)
        if known is None:
            log.exception("answer.failed", response_error=type(error).__name__)
            known = problem(INTERNAL_ERROR, f"Cody failed: {type(error).__name__}", retryable=False)
        last = adapter.fail(_without(secret, known))
    for payload in last:
        yield payload


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the provider asks to wait, in seconds; an HTTP date counts from the answer's own `date`."""
    for name, factor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / factor
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        until = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        now = email.utils.parsedate_to_datetime(headers.get("date", ""))
        return max((until - now).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def timeouts(silence_s: float) -> httpx2.Timeout:
    return httpx2.Timeout(silence_s, connect=CONNECT_TIMEOUT_S)


def connection_problem(*, timed_out: bool, answering: bool, message: str) -> ErrorInfo:
    """The error of a connection that failed before the answer began (`answering` false), or broke in its midst."""
    if timed_out:
        return problem(TIMEOUT, message, retryable=True)
    return problem(STREAM_DROPPED if answering else CONNECTION_FAILED, message, retryable=True)


def _explained(error: Exception, *, answering: bool) -> ErrorInfo | None:
    """What SDKs let through from the layers below them."""
    match error:
        case httpx2.TimeoutException():
            return connection_problem(timed_out=True, answering=answering, message=said(error))
        case httpx2.RequestError():
            return connection_problem(timed_out=False, answering=answering, message=said(error))
        case ValueError() if answering:
            # No JSON, or no UTF-8: both are ValueErrors.
            return malformed_chunk(f"the provider sent what is no event: {said(error)}")
        case _:
            return None


def said(error: Exception) -> str:
    """The error's message, and its cause's: `Connection error.` alone says nothing of a refused port."""
    texts = [str(known) or type(known).__name__ for known in (error, error.__cause__) if known is not None]
    return ": ".join(dict.fromkeys(texts))


def _without(secret: str | None, error: ErrorInfo) -> ErrorInfo:
    if not secret or secret not in error.message:
        return error
    return error.model_copy(update={"message": error.message.replace(secret, _HIDDEN)})
