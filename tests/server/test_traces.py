"""One trace from the cause to the row in SQL: of a request for an answer, and of a run's turn."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import Wait
from tests.pipeline.collector import Collector, Seen, collecting
from tests.pipeline.tool_calls import after_call, calling
from tests.pipeline.wire_server import WireServer, sse
from tests.server.cody_server import CodyServer, launch

KEY = "sk-test-0123456789"
AGENT = "import os, pathlib, sys; sys.stdin.read(); pathlib.Path(os.environ['CODY_STOP_FILE']).write_text('done')"


async def tracing_server(folder: Path, collector: Collector, **variables: Any) -> CodyServer:
    variables |= collector.environment
    return await asyncio.to_thread(launch, folder, **variables)


def connected(server: CodyServer) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.url, headers=server.auth, timeout=30)


async def complete(http: httpx2.AsyncClient, eventually: Wait, response_id: str) -> None:
    """The archive has the Response whole."""

    async def is_complete() -> bool:
        return bool((await http.get(f"/api/v2/responses/{response_id}")).json().get("status") == "complete")

    await eventually(is_complete)


async def exported(collector: Collector, eventually: Wait, *names: str) -> None:
    """The collector has spans with all these names: a process that ends waits for its last ones for some seconds only."""
    await eventually(lambda: set(names) <= {span.name for span in collector.spans}, f"spans {names}")


def writes_below(spans: list[Seen], top: Seen) -> list[Seen]:
    """SQL writes whose way up leads to `top`."""
    known = {span.span_id: span for span in spans}

    def is_below(span: Seen) -> bool:
        return span.parent == top.span_id or (span.parent in known and is_below(known[span.parent]))

    return [span for span in spans if span.name == "sql.write" and is_below(span)]


async def test_one_trace_runs_from_the_request_to_the_row(tmp_path: Path, eventually: Wait) -> None:
    trace_id, asked = "ab" * 16, {"prompt": "Say hello", "model": "gpt-5.5", "providerId": "openai"}
    with collecting() as collector:
        async with WireServer(sse("openai", "message")) as wire:
            server = await tracing_server(tmp_path, collector, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=wire.url)
            try:
                async with connected(server) as http:
                    headers = {"traceparent": f"00-{trace_id}-{'cd' * 8}-01"}
                    begun = await http.post("/api/v2/submit", json=asked, headers=headers)
                    response_id = begun.json()["runId"]
                    await complete(http, eventually, response_id)
                    stream = await http.get(f"/api/v2/stream/{response_id}")
                    own = "POST /api/v2/submit", "GET /api/v2/stream/{run_id}", "response.stream"
                    await exported(collector, eventually, *own, "model.answer", "response.project")
            finally:
                await asyncio.to_thread(server.discard)
    request = collector.one("POST /api/v2/submit")
    assert (request.service, request.trace_id, request.parent) == ("cody-server", trace_id, "cd" * 8)
    assert request.attributes["http.response.status_code"] == "202"
    assert collector.one("model.answer").parent == request.span_id
    projected = [span for span in collector.named("response.project") if span.trace_id == trace_id]
    assert {span.parent for span in projected} == {request.span_id}
    assert {span.attributes["response.id"] for span in projected} == {response_id}
    assert {span.trace_id for span in writes_below(collector.spans, request)} == {trace_id}
    events = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]
    assert {event["trace_context"]["traceparent"].split("-")[1] for event in events} == {trace_id}
    streamed = collector.one("response.stream")
    assert (streamed.trace_id, streamed.parent) == (trace_id, request.span_id), "a reader is part of what it reads"
    assert collector.one("GET /api/v2/stream/{run_id}").trace_id != trace_id, "its own request came from elsewhere"
    assert "Say hello" not in repr(collector.spans)
    assert KEY not in repr(collector.spans)


async def test_the_tools_of_an_answer_are_in_its_trace(tmp_path: Path, eventually: Wait) -> None:
    (tmp_path / "repo").mkdir()
    asked = {"prompt": "Look", "model": "gpt-5.5", "providerId": "openai"}
    tools = {"tools": ["list_dir"], "workingDir": str(tmp_path / "repo")}
    replies = calling("openai", "list_dir", 1), calling("openai", "s3cret", 2), after_call("openai")
    with collecting() as collector:
        async with WireServer(*replies) as wire:
            server = await tracing_server(tmp_path, collector, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=wire.url)
            try:
                async with connected(server) as http:
                    begun = await http.post("/api/v2/submit", json={**asked, **tools})
                    await complete(http, eventually, begun.json()["runId"])
                    await exported(collector, eventually, "model.answer")
            finally:
                await asyncio.to_thread(server.discard)
    answer = collector.one("model.answer")
    ran = collector.named("tool.run")
    assert [span.parent for span in ran] == [answer.span_id] * 2
    assert [span.attributes.get("tool") for span in ran] == ["list_dir", None], "what a model makes up is no name"


async def test_one_trace_runs_from_a_turn_to_its_rows(tmp_path: Path, eventually: Wait) -> None:
    epic = tmp_path / "repo" / ".cody-harness" / "current-epic"
    epic.mkdir(parents=True)
    (epic / "codys-log.md").write_text("# Log\n")
    config = {"workingDir": str(tmp_path / "repo"), "agent": "command", "command": [sys.executable, "-c", AGENT]}
    with collecting() as collector:
        server = await tracing_server(tmp_path, collector)
        try:
            async with connected(server) as http:
                begun = await http.post("/api/runs/continuous", json={"epicId": "current-epic", "config": config})
                assert begun.status_code == 202, begun.text
                run = f"/api/runs/{begun.json()['runId']}"
                assert "run_completed" in (await http.get(f"{run}/stream")).text
                [turn] = (await http.get(f"{run}/turns")).json()["turns"]
                await complete(http, eventually, turn["responseId"])

                async def is_archived() -> bool:
                    return "run_completed" in (await http.get(f"{run}/export")).text

                await eventually(is_archived)
                await exported(collector, eventually, "run.turn", "response.project", "run.project")
        finally:
            await asyncio.to_thread(server.discard)
    made = collector.one("run.turn")
    assert made.attributes["response.id"] == turn["responseId"]
    projected = [span for span in collector.named("response.project") if span.trace_id == made.trace_id]
    assert {span.attributes["response.id"] for span in projected} == {turn["responseId"]}
    assert turn["traceparent"].split("-")[1:3] == [made.trace_id, made.span_id]
    runs = [span for span in collector.named("run.project") if span.trace_id == made.trace_id]
    assert runs
    assert {(span.parent, span.attributes["turn"]) for span in runs} == {(made.span_id, "1")}
    below = writes_below(collector.spans, made)
    assert {known.name for known in [*projected, *runs] if known.span_id in {span.parent for span in below}} == {
        "response.project",
        "run.project",
    }
    with closing(sqlite3.connect(server.state_dir / "archive.sqlite3")) as archive:
        assert archive.execute("SELECT turn, trace_id FROM turns").fetchall() == [(1, made.trace_id)]
        events = archive.execute("SELECT type, turn, trace_id FROM run_events ORDER BY seq").fetchall()
    assert {trace_id for _, number, trace_id in events if number == 1} == {made.trace_id}
    assert {trace_id for _, number, trace_id in events if number is None} == {None}
    assert {"turn_started", "turn_completed"} <= {kind for kind, _, trace_id in events if trace_id}
