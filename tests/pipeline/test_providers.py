"""What goes wrong between Cody and a provider, for both alike: every answer ends, with a code that says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.responses import ResponseStreamEvent
from pydantic import ValidationError

from cody.contracts.responses import ErrorInfo, Message, Response
from cody.contracts.stream_events import ItemDelta
from cody.errors import ConfigurationError, InvalidRequest
from cody.pipeline.adapters.openai import OpenAIAdapter
from cody.pipeline.model_request import ModelRequest
from cody.pipeline.providers.driving import drive, retry_after_s
from cody.pipeline.providers.openai import openai_problem, stream_openai
from cody.pipeline.providers.registry import PROVIDER_IDS, open_provider
from tests.pipeline.answering import reduced
from tests.pipeline.asking import KEY, ask, ask_at, request
from tests.pipeline.events import START
from tests.pipeline.wire_server import Reply, WireServer, http_error, sse
from tests.ports import reserved_port

Wait = Callable[..., Awaitable[None]]

LAST_DELTA = {"openai": b'"delta":"!"', "anthropic": b'"text":"!"'}
FIRST_DELTA = {"openai": b'"delta":"Hel"', "anthropic": b'"text":"Hello"'}
FIRST_TEXT = {"openai": "Hel", "anthropic": "Hello"}
WHOLE_TEXT = "Hello – grüß dich 👋🏽!"


@pytest.fixture(params=PROVIDER_IDS)
def provider_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def failed(provider_id: str, reply: Reply, *, timeout_s: float = 20.0) -> tuple[Response, ErrorInfo]:
    """The Response of a reply that goes wrong, and its error. Whatever the reply, it was asked for once."""
    async with WireServer(reply) as wire, asyncio.timeout(60):
        response = reduced(await ask(provider_id, wire, timeout_s=timeout_s))
        while not wire.requests:
            # Whoever gave up soon was ahead of the server, which reads the request all the same.
            await asyncio.sleep(0.01)
    assert len(wire.requests) == 1
    assert response.status == "error"
    assert response.error is not None
    return response, response.error


def told(error: ErrorInfo, name: str) -> object:
    return (error.details or {}).get(name)


def texts(response: Response) -> list[str]:
    return [item.content for item in response.output_items if isinstance(item, Message)]


async def test_a_wrong_key(provider_id: str) -> None:
    response, error = await failed(provider_id, http_error(provider_id, "401"))
    assert (error.code, told(error, "retryable"), told(error, "http_status")) == ("auth_error", False, 401)
    assert response.output_items == ()
    assert KEY not in error.message, "some providers quote the key"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ((), None),
        ((("retry-after", "20"),), 20),
        ((("retry-after", "20"), ("retry-after-ms", "1500")), 1.5),
        ((("date", "Sun, 01 Mar 2026 10:00:00 GMT"), ("retry-after", "Sun, 01 Mar 2026 10:01:00 GMT")), 60),
        ((("retry-after", "soon"),), None),
    ],
)
async def test_too_many_requests(provider_id: str, headers: tuple[tuple[str, str], ...], wait_s: float | None) -> None:
    _, error = await failed(provider_id, http_error(provider_id, "429", *headers))
    assert (error.code, told(error, "retryable")) == ("rate_limited", True)
    assert told(error, "retry_after_s") == wait_s


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "", "1e999"])
def test_a_wait_that_makes_no_sense_is_not_told(value: str) -> None:
    assert retry_after_s({"retry-after": value}) is None


async def test_a_provider_in_trouble(provider_id: str) -> None:
    _, error = await failed(provider_id, http_error(provider_id, "500"))
    assert (error.code, told(error, "retryable"), told(error, "http_status")) == ("provider_error", True, 500)


async def test_a_request_that_is_refused() -> None:
    _, error = await failed("openai", http_error("openai", "400"))
    assert (error.code, told(error, "retryable")) == ("invalid_request", False)
    assert told(error, "provider_code") == "model_not_found"


async def test_an_empty_account_is_not_asked_again() -> None:
    _, error = await failed("openai", http_error("openai", "429_quota"))
    assert (error.code, told(error, "retryable")) == ("rate_limited", False)


async def test_an_overloaded_provider() -> None:
    _, error = await failed("anthropic", http_error("anthropic", "529"))
    assert (error.code, told(error, "retryable")) == ("provider_error", True)


async def test_an_error_page_of_a_proxy(provider_id: str) -> None:
    page = Reply(b"<html>" + b"x" * 10**5, 502, (("content-type", "text/html"),))
    _, error = await failed(provider_id, page)
    assert (error.code, told(error, "retryable")) == ("provider_error", True)
    assert len(error.message) <= 2000


@pytest.mark.parametrize("ending", ["early", "cut", "reset"])
async def test_a_stream_that_breaks_off(provider_id: str, ending: str) -> None:
    reply = sse(provider_id, "message")
    breaks = {
        "early": reply.broken("early", after=LAST_DELTA[provider_id]),
        "cut": reply.broken("cut", after=LAST_DELTA[provider_id]),
        "reset": reply.broken("reset", after=LAST_DELTA[provider_id]),
    }
    response, error = await failed(provider_id, breaks[ending])
    assert (error.code, told(error, "retryable")) == ("stream_dropped", True)
    if ending != "reset":  # a reset may overtake what was sent before it
        assert texts(response) == [WHOLE_TEXT]


async def test_a_stream_that_breaks_off_in_the_midst_of_an_event(provider_id: str) -> None:
    response, error = await failed(provider_id, sse(provider_id, "message").torn("cut", at="grü".encode()[:-1]))
    assert error.code == "stream_dropped"
    assert texts(response) == [WHOLE_TEXT[: WHOLE_TEXT.index(" grüß" if provider_id == "openai" else " – ")]]


async def test_an_answer_without_a_word(provider_id: str) -> None:
    response, error = await failed(provider_id, Reply(b""))
    assert error.code == "stream_dropped"
    assert response.output_items == ()


@pytest.mark.parametrize("name", ["malformed_json", "malformed_event"])
async def test_a_malformed_chunk(provider_id: str, name: str) -> None:
    response, error = await failed(provider_id, sse(provider_id, name))
    assert (error.code, told(error, "retryable")) == ("malformed_chunk", True)
    assert texts(response) == ["Let me"]


async def test_bytes_that_are_no_text(provider_id: str) -> None:
    whole = sse(provider_id, "message").body
    at = whole.index(FIRST_DELTA[provider_id]) + len(FIRST_DELTA[provider_id]) - 1
    _, error = await failed(provider_id, Reply(whole[:at] + b"\xff" + whole[at:]))
    assert error.code == "malformed_chunk"


async def test_a_refused_connection(provider_id: str) -> None:
    with reserved_port() as port:
        async with WireServer(port=port) as wire:
            url = wire.url
        response = reduced(await ask_at(provider_id, url))
    assert response.error is not None
    assert (response.error.code, told(response.error, "retryable")) == ("connection_failed", True)
    assert wire.requests == []


async def test_silence_before_the_answer(provider_id: str) -> None:
    mute = Reply(b"", ending="silence", headers=())
    _, error = await failed(provider_id, mute, timeout_s=0.5)
    assert (error.code, told(error, "retryable")) == ("timeout", True)


async def test_silence_in_the_midst_of_an_answer(provider_id: str) -> None:
    quiet = sse(provider_id, "message").broken("silence", after=FIRST_DELTA[provider_id])
    _, error = await failed(provider_id, quiet, timeout_s=0.5)
    assert (error.code, told(error, "retryable")) == ("timeout", True)


async def test_who_stops_listening_hangs_up(provider_id: str) -> None:
    """Each delta is told when it comes, though the server says no more; and closing the generator ends the request."""
    quiet = sse(provider_id, "message").broken("silence", after=FIRST_DELTA[provider_id])
    async with WireServer(quiet) as wire, asyncio.timeout(60):
        provider = await open_provider(provider_id, api_key=KEY, base_url=wire.url)
        async with aclosing(provider.stream(request())) as payloads:
            async for payload in payloads:
                if isinstance(payload, ItemDelta):
                    assert payload.delta_content == FIRST_TEXT[provider_id]
                    break
        await wire.closed_by_client.wait()
        await provider.aclose()


async def test_a_task_that_is_cancelled_hangs_up(provider_id: str, eventually: Wait) -> None:
    quiet = sse(provider_id, "message").broken("silence", after=FIRST_DELTA[provider_id])
    async with WireServer(quiet) as wire, asyncio.timeout(60):
        asking = asyncio.create_task(ask(provider_id, wire, timeout_s=600))
        await eventually(lambda: wire.requests, "the request")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await wire.closed_by_client.wait()


async def test_a_client_that_would_retry_does_not() -> None:
    async with (
        WireServer(http_error("openai", "500"), sse("openai", "message")) as wire,
        AsyncOpenAI(api_key=KEY, base_url=wire.url, max_retries=3) as client,
    ):
        response = reduced([payload async for payload in stream_openai(client, request())])
    assert (response.status, len(wire.requests)) == ("error", 1)


async def test_a_fault_of_codys_own_ends_the_answer_too() -> None:
    async def open_stream() -> AsyncStream[ResponseStreamEvent]:
        raise RuntimeError("a bug")

    adapter = OpenAIAdapter(START)
    stream = drive(adapter, open_stream, openai_problem, secret=None)
    response = reduced([payload async for payload in stream])
    assert response.error is not None
    assert (response.error.code, told(response.error, "retryable")) == ("internal_error", False)
    assert "a bug" not in response.error.message


async def test_an_empty_key_is_refused_before_anything_is_sent(provider_id: str) -> None:
    with pytest.raises(ConfigurationError, match="_API_KEY"):
        await open_provider(provider_id, api_key=" ")


async def test_an_unknown_provider_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="clippy"):
        await open_provider("clippy", api_key=KEY)


def test_a_request_asks_something() -> None:
    with pytest.raises(ValidationError, match="neither"):
        ModelRequest(opening=START)
