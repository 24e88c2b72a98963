"""What was let in ends with what let it in: streams, and requests that were still on their way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from cody.tokens import Caller, TokenStore, digest
from server.auth import SESSION_LIFETIME_S, Sessions
from server.grants import Credential, Grants
from tests.security.asking import LONG_BYTES, START, long_file
from tests.security.conftest import Launch
from tests.server.cody_server import DEADLINE_S, CodyServer, OwnedRun, running_server

Eventually = Callable[..., Awaitable[None]]

NO_TICK = {"CODY_SSE_KEEPALIVE_SEC": "3600"}
"""What ends a stream before this is over was no look from time to time."""


@pytest.fixture(scope="module")
def shared() -> Iterator[CodyServer]:
    """One server for all whose tokens are their own."""
    with running_server("grants", **NO_TICK) as started:
        yield started


@pytest.fixture
def quiet(shared: CodyServer) -> Iterator[CodyServer]:
    """As it was before: the tokens of a test are taken back."""
    yield shared
    with shared.client() as admin:
        for one in admin.get("/api/tokens").json()["tokens"]:
            if one["name"] != "local":
                admin.delete(f"/api/tokens/{one['name']}").raise_for_status()


@pytest.fixture
async def run(quiet: CodyServer) -> AsyncIterator[OwnedRun]:
    """A run that goes on as long as the test likes."""
    redis = quiet.redis()
    try:
        yield await OwnedRun.create(redis)
    finally:
        await redis.aclose()


@asynccontextmanager
async def caller(server: CodyServer, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=DEADLINE_S, headers=headers) as client:
        yield client


def token(server: CodyServer, name: str) -> str:
    with server.client() as admin:
        return str(admin.post("/api/tokens", json={"name": name, "scope": "control"}).json()["token"])


async def open_stream(client: httpx2.AsyncClient, path: str) -> asyncio.Task[bytes]:
    """The rest of a stream, once its first bytes have come."""
    begun = asyncio.Event()

    async def read() -> bytes:
        raw = b""
        async with client.stream("GET", path) as answer:
            assert answer.status_code == 200
            async for part in answer.aiter_raw():
                raw += part
                begun.set()
        return raw

    reading = asyncio.create_task(read())
    waiting = asyncio.create_task(begun.wait())
    await asyncio.wait({reading, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return reading


@pytest.mark.parametrize("change", ["revoke", "rotate"])
async def test_a_stream_ends_with_its_token_and_no_other_does(quiet: CodyServer, run: OwnedRun, change: str) -> None:
    path = f"/api/runs/{run.run_id}/stream"
    value, other = token(quiet, "screen"), token(quiet, "other")
    async with (
        caller(quiet, Authorization=f"Bearer {value}") as mine,
        caller(quiet, Authorization=f"Bearer {other}") as theirs,
        caller(quiet, **quiet.auth) as admin,
    ):
        ours, another = [await open_stream(mine, path) for _ in range(2)], await open_stream(theirs, path)
        if change == "rotate":
            await admin.post("/api/tokens/screen/rotate")
        else:
            await admin.delete("/api/tokens/screen")
        for raw in await asyncio.gather(*ours):
            assert b"[DONE]" not in raw
        assert (await mine.get(path)).status_code == 401
        await run.add(1)
        await run.complete()
        assert (await another).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("what", ["output", "prompt", "export"])
async def test_a_file_on_its_way_is_cut_off_with_its_token_and_no_other_is(
    quiet: CodyServer, workspace: Path, eventually: Eventually, what: str
) -> None:
    redis = quiet.redis()
    value, other = token(quiet, "screen"), token(quiet, "other")
    async with (
        contextlib.aclosing(redis),
        caller(quiet, Authorization=f"Bearer {value}") as mine,
        caller(quiet, Authorization=f"Bearer {other}") as theirs,
        caller(quiet, **quiet.auth) as admin,
    ):
        path = await long_file(mine, redis, quiet.state_dir, workspace, eventually, what)
        async with mine.stream("GET", path) as cut, theirs.stream("GET", path) as kept:
            assert (cut.status_code, kept.status_code) == (200, 200)
            await admin.delete("/api/tokens/screen")
            with pytest.raises(httpx2.TransportError):
                await cut.aread()
            assert len(await kept.aread()) >= LONG_BYTES
        assert (await mine.get(path)).status_code == 401
    assert "Traceback" not in quiet.stderr
    assert '"request.failed"' not in quiet.stderr
    assert "ASGI callable" not in quiet.stderr


async def test_a_browsers_stream_ends_with_its_session_and_with_the_token_behind_it(
    quiet: CodyServer, run: OwnedRun
) -> None:
    path = f"/api/runs/{run.run_id}/stream"
    value = token(quiet, "screen")
    async with caller(quiet, Authorization=f"Bearer {value}") as screen, caller(quiet, **quiet.auth) as admin:

        async def browser(opened: httpx2.AsyncClient) -> asyncio.Task[bytes]:
            await opened.get((await screen.post("/api/session/link")).json()["url"])
            return await open_stream(opened, path)

        async with caller(quiet) as first, caller(quiet) as second:
            left, kept = await browser(first), await browser(second)
            assert (await first.post("/api/session/leave", headers={"Origin": quiet.url})).status_code == 204
            assert b"[DONE]" not in await left
            assert not kept.done()
            await admin.delete("/api/tokens/screen")
            assert b"[DONE]" not in await kept


async def test_the_stream_of_a_models_answer_ends_with_its_token(launched: Launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as model:  # takes the question, and never answers
        url = f"http://127.0.0.1:{model.getsockname()[1]}/v1"
        server = launched(**NO_TICK, OPENAI_API_KEY="of-nobody-at-all", OPENAI_BASE_URL=url)
        value = token(server, "screen")
        async with caller(server, Authorization=f"Bearer {value}") as mine, caller(server, **server.auth) as admin:
            asked = {"providerId": "openai", "model": "gpt-5.5", "prompt": "hello"}
            answer = await admin.post("/api/v2/submit", json=asked)
            assert answer.status_code == 202, answer.text
            stream = await open_stream(mine, f"/api/v2/stream/{answer.json()['runId']}")
            await admin.delete("/api/tokens/screen")
            assert b"[DONE]" not in await stream


async def test_a_token_that_another_process_takes_back_ends_its_streams(launched: Launch) -> None:
    server = launched(CODY_SSE_KEEPALIVE_SEC="0.2")
    value = token(server, "screen")
    async with caller(server, Authorization=f"Bearer {value}") as mine:
        redis = server.redis()
        async with contextlib.aclosing(redis):
            run = await OwnedRun.create(redis)
            stream = await open_stream(mine, f"/api/runs/{run.run_id}/stream")
            TokenStore(server.state_dir).revoke("screen")
            assert b"[DONE]" not in await stream
    assert '"access.streams_ended"' in server.stderr


def test_a_change_whose_body_comes_after_the_token_was_taken_back_changes_nothing(quiet: CodyServer) -> None:
    value = token(quiet, "late")
    body = json.dumps({"name": "made-too-late", "scope": "read"}).encode()
    head = (
        f"POST {START} HTTP/1.1\r\nHost: 127.0.0.1:{quiet.port}\r\nAuthorization: Bearer {value}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with quiet.client() as admin, socket.create_connection(("127.0.0.1", quiet.port), timeout=DEADLINE_S) as late:
        late.sendall(head.encode() + body[:1])
        # On the same event loop: the head was read before this is answered.
        assert admin.delete("/api/tokens/late").status_code == 204
        late.sendall(body[1:])
        answer = b""
        while chunk := late.recv(65_536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"invalid_request" not in answer


def test_what_is_held_ends_when_a_session_runs_out() -> None:
    now = 0.0
    sessions = Sessions(1, clock=lambda: now)
    value, who = sessions.enter(sessions.link(Caller("ci", "read")))
    grants = Grants(sessions, sessions)
    credential = Credential("session", digest(value), who)
    ended: list[int] = []
    release = grants.hold(credential, lambda: ended.append(1))
    grants.hold(credential, lambda: ended.append(2))
    now = SESSION_LIFETIME_S
    grants.check()
    assert ended == []
    release()
    now += 1
    grants.check()
    assert ended == [2]
    grants.hold(credential, lambda: ended.append(3))
    assert ended == [2, 3], "one that opens at the moment of the end is not forgotten"


def test_a_token_file_that_can_not_be_read_holds_nothing_open(tmp_path: Path) -> None:
    tokens = TokenStore(tmp_path)
    grants = Grants(tokens, Sessions(1))
    credential = Credential("token", digest(tokens.create("ci", "read")), Caller("ci", "read"))
    assert grants.counts(credential)
    (tmp_path / "tokens.json").write_text("{")
    assert not grants.counts(credential)
