"""The replay server over real HTTP: what it refuses, how it cuts, how it closes, what it remembers."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import httpx2
import pytest

from cody.errors import ConfigurationError
from harness.replay.loopback import MAX_BODY_BYTES
from harness.replay.recording import EventReader
from harness.replay.scenario import Scenario
from harness.replay.scenario_file import parse_scenario
from harness.replay.server import KEPT_REQUESTS, ReplayServer

_KEY = "sk-a-key-that-is-nowhere-kept"
_HEADERS = {"authorization": f"Bearer {_KEY}"}
_DEADLINE_S = 60


def _scenario(*answers: dict[str, Any], **fields: Any) -> Scenario:
    turns = [{"responses": [answer]} for answer in answers]
    return parse_scenario(json.dumps({"name": "test", "turns": turns, **fields}), origin="test")


def _client(server: ReplayServer) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.base_url, headers=_HEADERS, timeout=_DEADLINE_S)


def _say(text: str) -> dict[str, Any]:
    return {"items": [{"type": "message", "text": text}], "usage": {"input": 3, "output": 2}}


def _ask(prompt: str = "go", **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-5.5", "input": prompt, **fields}


async def test_a_stream_and_a_whole_answer_say_the_same() -> None:
    async with ReplayServer(_scenario(_say("hello"), on_exhausted="repeat_last")) as server, _client(server) as client:
        streamed = await client.post("/responses", json=_ask(stream=True))
        whole = await client.post("/responses", json=_ask())
        models = await client.get("/models")

    assert streamed.headers["content-type"].startswith("text/event-stream")
    last = EventReader().feed(streamed.content)[-1]
    assert last["type"] == "response.completed"
    assert [r["output"][0]["content"][0]["text"] for r in (last["response"], whole.json())] == ["hello", "hello"]
    assert [r["usage"]["total_tokens"] for r in (last["response"], whole.json())] == [5, 5]
    assert [model["id"] for model in models.json()["data"]] == ["gpt-5.5"]


@pytest.mark.parametrize(
    ("status", "code", "headers", "body"),
    [
        (403, "replay_forbidden", {"origin": "https://example.org"}, b'{"input": "go"}'),
        (415, "replay_encoding", {"content-encoding": "zstd"}, b'{"input": "go"}'),
        (413, "replay_too_large", {}, b" " * (MAX_BODY_BYTES + 1)),
        (400, "replay_not_understood", {}, b"no json"),
        (400, "replay_not_understood", {}, b"[]"),
        (400, "replay_not_understood", {}, b'{"input": 3}'),
        (400, "replay_not_understood", {}, b'{"input": "go", "previous_response_id": "resp_1"}'),
    ],
)
async def test_a_refused_request_uses_nothing_up(status: int, code: str, headers: dict[str, str], body: bytes) -> None:
    async with ReplayServer(_scenario(_say("still there"))) as server, _client(server) as client:
        refused = await client.post("/responses", content=body, headers=headers)
        answered = await client.post("/responses", json=_ask())

    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert answered.json()["output"][0]["content"][0]["text"] == "still there"


async def test_an_exhausted_scenario_is_a_clear_error() -> None:
    async with ReplayServer(_scenario(_say("once"))) as server, _client(server) as client:
        await client.post("/responses", json=_ask())
        refused = await client.post("/responses", json=_ask("more"))

    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "replay_exhausted")
    assert error["message"].startswith("replay: scenario test: all of its turns (1) were played.")


async def test_an_error_answer_has_status_headers_and_body() -> None:
    limited = {
        "error": {"status": 429, "code": "rate_limit_exceeded", "message": "slow", "headers": {"retry-after": "7"}}
    }
    own = {"error": {"status": 503, "body": "<html>away</html>", "headers": {"content-type": "text/html"}}}
    async with ReplayServer(_scenario(limited, own)) as server, _client(server) as client:
        first = await client.post("/responses", json=_ask())
        second = await client.post("/responses", json=_ask("again"))

    assert (first.status_code, first.headers["retry-after"]) == (429, "7")
    assert first.json() == {
        "error": {"message": "slow", "type": "replay_error", "param": None, "code": "rate_limit_exceeded"}
    }
    assert (second.status_code, second.text, second.headers["content-type"]) == (503, "<html>away</html>", "text/html")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_drop_cuts_the_connection_after_the_headers(stream: bool) -> None:
    async with ReplayServer(_scenario(_say("half") | {"drop": 1})) as server, _client(server) as client:
        received, was_cut = b"", False
        async with client.stream("POST", "/responses", json=_ask(stream=stream)) as response:
            try:
                async for chunk in response.aiter_bytes():
                    received += chunk
            except httpx2.RemoteProtocolError:
                was_cut = True

    assert (response.status_code, was_cut) == (200, True)
    kinds = [event["type"] for event in EventReader().feed(received)]
    assert kinds[-1:] == (["response.output_item.done"] if stream else [])


@pytest.mark.parametrize("delays", [{"delay_ms": 600_000}, {"item_delay_ms": 600_000}])
async def test_closing_does_not_wait_for_delayed_answers(delays: dict[str, int]) -> None:
    server = ReplayServer(_scenario(_say("late") | delays))
    async with asyncio.timeout(_DEADLINE_S), httpx2.AsyncClient(timeout=_DEADLINE_S) as client:
        async with server:
            asking = asyncio.create_task(client.post(f"{server.base_url}/responses", json=_ask(stream=True)))
            while not server.requests:
                await asyncio.sleep(0.01)
            assert not asking.done()
        outcome = (await asyncio.gather(asking, return_exceptions=True))[0]

    assert isinstance(outcome, httpx2.RemoteProtocolError) or outcome.status_code == 500  # type: ignore[union-attr]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
async def test_only_loopback_addresses_are_listened_on(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1 or ::1"):
        await ReplayServer(_scenario(_say("x")), host=host).__aenter__()


async def test_a_port_in_use_is_named() -> None:
    async with ReplayServer(_scenario(_say("x"))) as server:
        port = httpx2.URL(server.base_url).port
        assert port is not None
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1 port {port}"):
            await ReplayServer(_scenario(_say("x")), port=port).__aenter__()


async def test_requests_are_remembered_up_to_a_limit_and_without_the_key() -> None:
    async with ReplayServer(_scenario(_say("x"), on_exhausted="repeat_last")) as server, _client(server) as client:
        for number in range(KEPT_REQUESTS + 3):
            await client.post("/responses", json=_ask(f"prompt {number}"))
        requests = server.requests

    assert len(requests) == KEPT_REQUESTS
    assert (requests[0].prompt, requests[-1].prompt) == ("prompt 3", f"prompt {KEPT_REQUESTS + 2}")
    assert (requests[-1].turn, requests[-1].answer, requests[-1].refusal) == (KEPT_REQUESTS + 3, 0, None)
    assert _KEY not in repr(requests)


async def test_clients_are_told_apart_by_path_then_key() -> None:
    async with ReplayServer(_scenario(_say("one"), _say("two"))) as server:
        async with httpx2.AsyncClient(timeout=_DEADLINE_S) as client:
            for url in (server.base_url, server.session_url("a"), server.session_url("b")):
                for key in ("k1", "k2"):
                    headers = {"authorization": f"Bearer {key}"}
                    await client.post(f"{url}/responses", json=_ask(f"{key} at {url}"), headers=headers)
            await client.post(f"{server.base_url}/responses", json=_ask())
        turns = [request.turn for request in server.requests]

    assert turns == [1, 1, 1, 2, 1, 2, 1]


async def test_signals_stay_with_the_process_that_the_server_is_a_guest_in() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with ReplayServer(_scenario(_say("x"))):
        within = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert within == before
