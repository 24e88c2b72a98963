"""What goes wrong between a submit and its row: every answer ends, and client and archive agree on how."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cody.contracts.responses import ErrorInfo, Response
from cody.pipeline.hydrator import Hydrator, events_of, hydrate
from cody.store import keys
from cody.store.response_events import GROUP
from tests.conftest import Wait
from tests.pipeline.serving import MODELS, Served, SharedServer, kinds, served, shared_server, texts
from tests.pipeline.wire_server import Reply, WireServer, http_error, sse

REPOSITORY = Path(__file__).resolve().parents[2]
LAST_DELTA = b'"delta":"!"'


BOTH = pytest.mark.parametrize("provider_id", ["openai", "anthropic"])
DELTA = {"openai": LAST_DELTA, "anthropic": b'"text_delta"'}


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedServer]:
    """A server that the tests of this module share; its models are those that they ask for."""
    with shared_server(CODY_MODELS=", ".join(MODELS.values())) as one:
        yield one


async def failed(shared: SharedServer, provider_id: str, reply: Reply) -> tuple[Response, ErrorInfo]:
    async with (
        shared.wire(provider_id, reply) as wire,
        shared.wire("anthropic" if provider_id == "openai" else "openai") as other,
        shared.visited() as one,
    ):
        response = await one.answered(provider_id)
    assert len(wire.requests) == 1, "whatever the reply, it was asked for once"
    assert other.requests == [], "and no other provider was"
    assert response.status == "error"
    assert response.error is not None
    assert kinds(response)[0] == "message of user"
    return response, response.error


@BOTH
async def test_a_wrong_key(shared: SharedServer, provider_id: str) -> None:
    response, error = await failed(shared, provider_id, http_error(provider_id, "401"))
    assert (error.code, (error.details or {})["retryable"]) == ("auth_error", False)
    assert kinds(response) == ["message of user"]


@BOTH
async def test_too_many_requests(shared: SharedServer, provider_id: str) -> None:
    _, error = await failed(shared, provider_id, http_error(provider_id, "429", ("retry-after", "20")))
    assert error.code == "rate_limited"
    assert (error.details or {})["retry_after_s"] == 20


@BOTH
async def test_a_provider_in_trouble(shared: SharedServer, provider_id: str) -> None:
    _, error = await failed(shared, provider_id, http_error(provider_id, "500"))
    assert (error.code, (error.details or {})["retryable"]) == ("provider_error", True)


@BOTH
async def test_an_answer_that_is_dropped_in_its_midst_keeps_what_came(shared: SharedServer, provider_id: str) -> None:
    reply = sse(provider_id, "message").broken("cut", after=DELTA[provider_id])
    response, error = await failed(shared, provider_id, reply)
    assert error.code == "stream_dropped"
    assert len(texts(response)) == 1
    assert texts(response)[0]


@BOTH
async def test_a_chunk_that_is_no_event(shared: SharedServer, provider_id: str) -> None:
    _, error = await failed(shared, provider_id, sse(provider_id, "malformed_json"))
    assert error.code == "malformed_chunk"


async def in_its_midst(one: Served, hydrator: Hydrator | None = None) -> str:
    """The id of an answer of which a client has seen the first delta."""
    told = await one.submit()
    async with aclosing(events_of(one.http, told.run_id)) as events:
        async for event_id, event in events:
            if hydrator is not None:
                hydrator.feed(event, event_id=event_id)
            if event.type == "item_delta":
                break
    return told.run_id


async def test_a_failed_turn_is_no_part_of_the_thread(shared: SharedServer) -> None:
    async with (
        shared.wire("openai", http_error("openai", "500"), sse("openai", "second_turn")) as wire,
        shared.visited() as one,
    ):
        first = await one.answered(prompt="first try")
        assert (await one.answered(prompt="second try", threadId=first.thread_id)).status == "complete"
    assert [item["content"] for item in wire.requests[1].body["input"]] == ["second try"]


async def test_an_answer_that_the_user_aborts(shared: SharedServer) -> None:
    reply = sse("openai", "message").broken("silence", after=LAST_DELTA)
    async with shared.wire("openai", reply) as wire, shared.visited() as one:
        hydrator = Hydrator()
        response_id = await in_its_midst(one, hydrator)
        answer = await one.http.post(f"/api/v2/responses/{response_id}/abort", json={"reason": "enough"})
        assert (answer.status_code, answer.json()) == (200, {"runId": response_id, "status": "aborted"})
        response = await hydrate(one.http, response_id, hydrator=hydrator)
        assert response == await one.persisted(response_id)
        assert response.status == "aborted"
        assert response.error is not None
        assert (response.error.code, response.error.message) == ("aborted_by_user", "enough")
        assert texts(response)[0], "what came before the abort stays"
        async with asyncio.timeout(60):
            await wire.closed_by_client.wait()
        again = await one.http.post(f"/api/v2/responses/{response_id}/abort")
        assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")


async def test_a_server_killed_in_the_midst_of_an_answer_leaves_none_in_progress() -> None:
    reply = sse("openai", "message").broken("silence", after=LAST_DELTA)
    async with WireServer(reply) as wire, served(openai=wire) as one:
        hydrator = Hydrator()
        response_id = await in_its_midst(one, hydrator)
        one.server.end(signal.SIGKILL)
        await one.restart()
        async with one.server.redis() as redis:
            # As when the leases of the dead one run out.
            await redis.delete(keys.response_publisher(response_id), keys.response_projector(response_id))
        response = await hydrate(one.http, response_id, hydrator=hydrator)
        assert response == await one.persisted(response_id)
    assert response.status == "error"
    assert response.error is not None
    assert response.error.code == "publisher_lost"


async def test_a_server_that_is_stopped_says_so_in_its_answers() -> None:
    reply = sse("openai", "message").broken("silence", after=LAST_DELTA)
    async with WireServer(reply) as wire, served(openai=wire) as one:
        response_id = await in_its_midst(one)
        assert await asyncio.to_thread(one.server.end) == 0
        await one.restart()
        response = await one.ended(response_id)
    assert response.error is not None
    assert response.error.code == "server_stopped", (response.error, one.server.log.parent)


async def test_a_projector_killed_between_commit_and_acknowledgement(eventually: Wait) -> None:
    async with WireServer(sse("openai", "message")) as wire, served(openai=wire, CODY_PROJECTOR="0") as one:
        told = await one.submit()
        hydrated = await hydrate(one.http, told.run_id)
        assert hydrated.status == "complete"
        assert (await one.read(told.run_id)).status == "queued", "nobody projects yet"
        redis_url = f"unix://{one.server.state_dir}/redis/redis.sock"
        database_url = f"sqlite:///{one.server.state_dir}/archive.sqlite3"
        program = [sys.executable, "-m", "tests.pipeline.response_projector_process"]
        dying = [*program, redis_url, database_url, str(one.server.state_dir)]
        with subprocess.Popen(dying, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "committed\n" in process.stdout
            process.kill()
        async with one.server.redis() as redis:
            key = keys.response_events(told.run_id)
            group = next(one for one in await redis.xinfo_groups(key) if one["name"] == GROUP.encode())
            assert group["pending"] > 0
            heir = subprocess.Popen(
                [sys.executable, "-m", "cody.pipeline.projector", "--state-dir", str(one.server.state_dir)],
                cwd=REPOSITORY,
                env={"PATH": "/usr/bin:/bin", "REDIS_URL": redis_url},
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                assert heir.stdout is not None
                assert "archive.sqlite3" in next(line for line in heir.stdout if line.startswith("projecting"))

                async def is_acknowledged() -> bool:
                    return all(one["pending"] == 0 for one in await redis.xinfo_groups(key))

                await eventually(is_acknowledged, deadline_s=60)
                assert await one.persisted(told.run_id) == hydrated
                heir.send_signal(signal.SIGTERM)
                assert heir.wait(30) == 0
            finally:
                heir.kill()
                heir.wait()
                if heir.stdout is not None:
                    heir.stdout.close()


@pytest.mark.parametrize(
    ("provider_id", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")]
)
async def test_a_key_that_is_missing_is_named(provider_id: str, variable: str) -> None:
    environment: dict[str, Any] = {variable: ""}
    async with served(**environment) as one:
        body = {"prompt": "x", "model": "m", "providerId": provider_id}
        answer = await one.http.post("/api/v2/submit", json=body)
        assert answer.status_code == 400
        assert variable in answer.json()["error"]["message"]


async def test_what_can_not_be_asked(shared: SharedServer) -> None:
    async with shared.visited() as one:
        for body, status in (
            ({"prompt": "x", "model": "other", "providerId": "openai"}, 403),
            ({"prompt": "x", "model": "gpt-5.5", "providerId": "nobody"}, 400),
            ({"model": "gpt-5.5", "providerId": "openai"}, 400),
            ({"prompt": "", "model": "gpt-5.5", "providerId": "openai"}, 400),
            ({"prompt": "x", "model": "gpt-5.5", "providerId": "openai", "threadId": "a b"}, 400),
            ({"toolOutputs": [{"callId": "c", "output": ""}], "model": "gpt-5.5", "providerId": "openai"}, 400),
        ):
            answer = await one.http.post("/api/v2/submit", json=body)
            assert answer.status_code == status, answer.text
        unknown = "00000000-0000-4000-8000-000000000000"
        for method, path in (
            ("GET", f"/api/v2/responses/{unknown}"),
            ("GET", f"/api/v2/stream/{unknown}"),
            ("POST", f"/api/v2/responses/{unknown}/abort"),
            ("GET", "/api/v2/threads/nobody"),
        ):
            answer = await one.http.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
