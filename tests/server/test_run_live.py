"""A run over HTTP, end to end: a real server process, an agent that waits, and a client that watches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Wait
from tests.server.cody_server import CodyServer
from tests.server.conftest import Launch

AGENT = """
import json, os, sys, time
from pathlib import Path
sys.stdin.read()
epic = Path(os.environ["CODY_EPIC_DIR"])
print("hello", flush=True)
print(json.dumps({"__cody_event__": {"type": "token_usage", "inputTokens": 30, "outputTokens": 12}}), flush=True)
Path("made.txt").write_text("x")
with open(epic / "codys-log.md", "a") as log: log.write("- did it\\n")
print("===== 2 passed, 1 failed in 0.10s =====", flush=True)
while not Path("go").exists(): time.sleep(0.01)
(epic / ".stop").write_text("done")
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "repo"
    (path / ".cody-harness" / "current-epic").mkdir(parents=True)
    (path / "agent.py").write_text(AGENT)
    return path


@pytest.fixture
def body(workspace: Path) -> dict[str, Any]:
    config = {
        "workingDir": str(workspace),
        "agent": "command",
        "command": [sys.executable, "agent.py"],
        "loopDelaySec": 0,
    }
    return {"epicId": "current-epic", "config": config}


def events(answer: httpx2.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream as they come, until [DONE]."""
    for line in answer.iter_lines():
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def test_a_run_is_accepted_at_once_and_seen_while_it_works(
    server: CodyServer, client: httpx2.Client, workspace: Path, body: dict[str, Any], eventually: Wait
) -> None:
    accepted = client.post("/api/runs/continuous", json=body)
    # The agent is held up until a file is there: the answer can't have waited for its end.
    assert accepted.status_code == 202
    run_id = accepted.json()["runId"]
    assert accepted.json()["streamKey"] == f"codi:api:run:{run_id}:events"
    wanted = {"subprocess_output", "token_usage", "file_written", "log_updated", "test_run_completed"}
    seen: list[dict[str, Any]] = []
    with client.stream("GET", f"/api/runs/{run_id}/stream") as stream:
        live = events(stream)
        for event in live:
            seen.append(event)
            if wanted <= {one["type"] for one in seen}:
                break
        assert "turn_completed" not in {one["type"] for one in seen}
        await eventually(lambda: client.get(f"/api/runs/{run_id}").json()["subscribers"] == 1)
        (workspace / "go").touch()
        seen += live
    assert [one["seq"] for one in seen] == list(range(1, len(seen) + 1))
    assert seen[-1]["type"] == "run_completed"
    snapshot = client.get(f"/api/runs/{run_id}/status").json()
    assert snapshot["status"] == "completed"
    assert snapshot["completion"] == {"detected": True, "line": "done", "source": "stop_file"}
    stats = snapshot["stats"]
    assert (stats["turns"], stats["tokens"], stats["testsPassed"], stats["testsFailed"]) == (1, 42, 2, 1)
    listed = client.get("/api/runs", params={"status": "completed", "limit": 5}).json()["runs"]
    assert [(run["runId"], run["stats"]) for run in listed if run["runId"] == run_id] == [(run_id, stats)]
    assert "config" not in listed[0]
    (turn,) = client.get(f"/api/runs/{run_id}/turns").json()["turns"]
    assert (turn["status"], turn["exitCode"], turn["testsFailed"]) == ("completed", 0, 1)
    output = client.get(f"/api/runs/{run_id}/turns/1/output")
    assert output.content.startswith(b"hello\n")
    part = client.get(f"/api/runs/{run_id}/turns/1/output", headers={"Range": "bytes=0-4"})
    assert (part.status_code, part.content) == (206, b"hello")
    assert "=== BEGIN WORK ===" in client.get(f"/api/runs/{run_id}/prompt").json()["prompt"]


def test_a_run_is_accepted_before_anything_of_it_has_begun(
    launched: Launch, workspace: Path, body: dict[str, Any]
) -> None:
    """The only slot is taken: an answer that waited for the work to begin would not come before the other run ends."""
    server = launched(CODY_CONCURRENCY="1", CODY_ON_SHUTDOWN="cancel")
    with server.client() as client:
        first = client.post("/api/runs/continuous", json=body).json()["runId"]
        with client.stream("GET", f"/api/runs/{first}/stream") as stream:
            next(event for event in events(stream) if event["type"] == "turn_started")
        accepted = client.post("/api/runs/continuous", json=body)
        assert (accepted.status_code, accepted.json()["meta"]["status"]) == (202, "queued")
        second = accepted.json()["runId"]
        assert client.get(f"/api/runs/{first}").json()["status"] == "running"
        assert client.get(f"/api/runs/{second}").json()["status"] == "queued"
        (workspace / "go").touch()
        with client.stream("GET", f"/api/runs/{second}/stream") as stream:
            seen = [event["type"] for event in events(stream)]
    assert (seen[0], seen[-1]) == ("run_queued", "run_completed")


def test_the_next_turn_waits_for_the_delay(client: httpx2.Client, body: dict[str, Any]) -> None:
    delay_s = 0.5
    config = {**body["config"], "command": [sys.executable, "-c", ""], "loopDelaySec": delay_s, "maxTurns": 3}
    run_id = client.post("/api/runs/continuous", json={**body, "config": config}).json()["runId"]
    with client.stream("GET", f"/api/runs/{run_id}/stream") as stream:
        seen = list(events(stream))
    began = [moment(event) for event in seen if event["type"] == "turn_started"]
    ended = [moment(event) for event in seen if event["type"] == "turn_completed"]
    pauses = [later - before for before, later in zip(ended, began[1:], strict=False)]
    # Timers and timestamps are in whole milliseconds.
    assert [pause >= timedelta(seconds=delay_s, milliseconds=-10) for pause in pauses] == [True, True], pauses


def moment(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["ts"])


def test_equal_posts_with_one_key_are_one_run(client: httpx2.Client, workspace: Path, body: dict[str, Any]) -> None:
    (workspace / "go").touch()
    headers = {"Idempotency-Key": "the same"}
    answers = [client.post("/api/runs/continuous", json=body, headers=headers) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["runId"] for answer in answers}) == 1
    other = client.post("/api/runs/continuous", json={**body, "epicId": "other"}, headers=headers)
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "conflict"


def test_pause_resume_and_cancel_over_http(client: httpx2.Client, workspace: Path, body: dict[str, Any]) -> None:
    run_id = client.post("/api/runs/continuous", json=body).json()["runId"]
    with client.stream("GET", f"/api/runs/{run_id}/stream", params={"from": "0"}) as stream:
        live = events(stream)
        next(event for event in live if event["type"] == "turn_started")
        assert client.post(f"/api/runs/{run_id}/pause", json={"reason": "lunch"}).json() == {
            "runId": run_id,
            "status": "pausing",
        }
        refused = client.post(f"/api/runs/{run_id}/resume")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        cancelled = client.post(f"/api/runs/{run_id}/control", json={"action": "cancel"})
        assert cancelled.json()["status"] == "cancelling"
        assert [event["type"] for event in live][-1] == "run_cancelled"
    again = client.post(f"/api/runs/{run_id}/cancel")
    assert again.status_code == 409
    assert "cancelled" in again.json()["error"]["message"]
