"""The routes of Responses: who may call them, what they refuse, and the shape of their streams."""

from __future__ import annotations

import asyncio

import httpx2

from tests.pipeline.serving import served
from tests.pipeline.wire_server import WireServer, sse

LAST_DELTA = b'"delta":"!"'


async def test_a_stream_has_ids_data_and_an_end() -> None:
    async with WireServer(sse("openai", "message")) as wire, served(openai=wire) as one:
        answer = await one.http.post(
            "/api/v2/submit",
            json={"prompt": "Hello", "model": "gpt-5.5", "providerId": "openai"},
            headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        )
        told = answer.json()
        assert set(told) == {"runId", "threadId", "turnId"}
        assert answer.headers["location"] == f"/api/v2/responses/{told['runId']}"
        body = await one.http.get(f"/api/v2/stream/{told['runId']}")
        assert body.headers["content-type"] == "text/event-stream"
        frames = [frame for frame in body.text.split("\n\n") if frame and not frame.startswith((":", "retry"))]
        assert frames[-1] == "data: [DONE]"
        ids = [frame.split("\n")[0] for frame in frames[:-1]]
        assert ids == [f"id: {number}-0" for number in range(1, len(frames))]
        assert all(f'"run_id":"{told["runId"]}"' in frame for frame in frames[:-1])
        assert body.text.count("00-0af7651916cd43dd8448eb211c80319c-") == len(ids), "one trace from request to event"
        rest = await one.http.get(f"/api/v2/stream/{told['runId']}", headers={"Last-Event-ID": "3-0"})
        assert rest.text.count("\nid: ") == len(ids) - 3
        assert "id: 4-0" in rest.text
        nothing = await one.http.get(f"/api/v2/stream/{told['runId']}?from=$")
        assert "id:" not in nothing.text
        assert nothing.text.endswith("data: [DONE]\n\n")
        wrong = await one.http.get(f"/api/v2/stream/{told['runId']}?from=yesterday")
        assert wrong.status_code == 400


async def test_a_quiet_stream_is_kept_alive() -> None:
    reply = sse("openai", "message").broken("silence", after=LAST_DELTA)
    async with WireServer(reply) as wire, served(openai=wire, CODY_SSE_KEEPALIVE_SEC="0.2") as one:
        answer = await one.http.post(
            "/api/v2/submit", json={"prompt": "Hello", "model": "gpt-5.5", "providerId": "openai"}
        )
        run_id = answer.json()["runId"]
        async with asyncio.timeout(30), one.http.stream("GET", f"/api/v2/stream/{run_id}") as stream:
            async for line in stream.aiter_lines():
                if line == ":keepalive":
                    break
        await one.http.post(f"/api/v2/responses/{run_id}/abort")
        ended = await one.http.get(f"/api/v2/stream/{run_id}")
        assert '"type":"turn_aborted_by_user"' in ended.text
        assert ended.text.endswith("data: [DONE]\n\n")


async def test_an_answer_can_not_pose_as_the_turn_of_a_run() -> None:
    asked = {"prompt": "Hello", "model": "gpt-5.5", "providerId": "openai"}
    async with WireServer(sse("openai", "message")) as wire, served(openai=wire) as one:
        turn_id = "6f2c1a52-7c62-4bde-9b53-25a1a6b1c111:1"
        refused = await one.http.post("/api/v2/submit", json={**asked, "turnId": turn_id})
        assert refused.status_code == 400
        assert "names a turn of a run" in refused.text
        assert wire.requests == []
        taken = await one.http.post("/api/v2/submit", json={**asked, "turnId": f"{turn_id}a"})
        assert (taken.status_code, taken.json()["turnId"]) == (202, f"{turn_id}a")


async def test_threads_are_listed_beside_the_search_too() -> None:
    async with WireServer(sse("openai", "message")) as wire, served(openai=wire) as one:
        answered = await one.answered(prompt="Hello")
        pages = [(await one.http.get(path)).json() for path in ("/api/threads", "/api/v2/threads")]
        assert [thread["threadId"] for thread in pages[0]["threads"]] == [answered.thread_id]
        assert pages[0] == pages[1]
        assert (await one.http.get("/api/threads?cursor=x")).status_code == 400


async def test_nobody_gets_in_without_a_token_and_readers_only_read() -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    calls = [
        ("POST", "/api/v2/submit"),
        ("GET", f"/api/v2/stream/{unknown}"),
        ("GET", f"/api/v2/responses/{unknown}"),
        ("POST", f"/api/v2/responses/{unknown}/abort"),
        ("GET", "/api/threads"),
        ("GET", "/api/v2/threads"),
        ("GET", "/api/v2/threads/t"),
    ]
    async with served() as one:
        made = await one.http.post("/api/tokens", json={"name": "reader", "scope": "read"})
        reader = {"Authorization": f"Bearer {made.json()['token']}"}
        async with httpx2.AsyncClient(base_url=one.server.url, timeout=30) as nobody:
            for method, path in calls:
                assert (await nobody.request(method, path, json={})).status_code == 401, path
                status = (await nobody.request(method, path, json={}, headers=reader)).status_code
                assert (status == 403) == (method == "POST"), path
