"""One trace from the cause to the row in SQL: of a request for an answer, and of a run's turn."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import Wait
from tests.pipeline.collector import Collector, Seen, collecting
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
    assert "Say hello" not in repr(collector.spans)
    assert KEY not in repr(collector.spans)


async def test_one_trace_runs_from_a_turn_to_its_row(tmp_path: Path, eventually: Wait) -> None:
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
        finally:
            await asyncio.to_thread(server.discard)
    made = collector.one("run.turn")
    assert made.attributes["response.id"] == turn["responseId"]
    projected = [span for span in collector.named("response.project") if span.trace_id == made.trace_id]
    assert {span.attributes["response.id"] for span in projected} == {turn["responseId"]}
    assert writes_below(collector.spans, made)
