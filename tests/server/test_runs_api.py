"""A run over HTTP: started, listed, steered, looked at, its raw output read; the agent is a real program."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from cody.store import keys
from tests.server.cody_server import CodyServer, OwnedRun

Eventually = Callable[..., Awaitable[None]]

OUTPUT = b"".join(b"%07d\n" % number for number in range(50_000))
PRINTING = """
import os, pathlib, sys, time
sys.stdout.write("".join(f"{n:07d}\\n" for n in range(50_000)))
sys.stdout.flush()
go = pathlib.Path("go")
while not go.exists(): time.sleep(0.01)
pathlib.Path(os.environ["CODY_STOP_FILE"]).write_text("done")
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    epic = tmp_path / ".cody-harness" / "current-epic"
    epic.mkdir(parents=True)
    (epic / "codys-log.md").write_text("# Log\n", encoding="utf-8")
    return tmp_path


def start_request(workspace: Path, code: str = PRINTING, **config: Any) -> dict[str, Any]:
    command = [sys.executable, "-c", code]
    return {
        "epicId": "current-epic",
        "config": {"workingDir": str(workspace), "agent": "command", "command": command, "loopDelaySec": 0, **config},
    }


@pytest.fixture
def run(client: httpx2.Client, workspace: Path) -> Iterator[str]:
    """The path of a run whose agent has 400,000 bytes to say and then waits for the file `go`."""
    answer = client.post("/api/runs/continuous", json=start_request(workspace))
    assert answer.status_code == 202, answer.text
    path = f"/api/runs/{answer.json()['runId']}"
    yield path
    (workspace / "go").touch()
    with client.stream("GET", f"{path}/stream?from=$") as stream:
        stream.read()
    assert client.get(path).json()["status"] in {"completed", "cancelled"}


async def output_is_whole(client: httpx2.Client, run: str, eventually: Eventually) -> None:
    def whole() -> bool:
        answer = client.head(f"{run}/turns/1/output")
        return answer.status_code == 200 and int(answer.headers["x-cody-output-size"]) == len(OUTPUT)

    await eventually(whole, "the agent's output is in the log")


async def test_a_started_run_is_answered_at_once_and_found(
    client: httpx2.Client, run: str, eventually: Eventually
) -> None:
    snapshot = client.get(run).json()
    assert snapshot["status"] in {"queued", "running"}
    assert snapshot["streamKey"] == f"codi:api:run:{snapshot['runId']}:events"
    assert snapshot["config"]["agent"] == "command"
    listed = client.get("/api/runs?limit=1&epicId=current-epic").json()
    assert [one["runId"] for one in listed["runs"]] == [snapshot["runId"]]
    assert "config" not in listed["runs"][0]
    assert client.get("/api/runs?status=failed").json()["runs"] == []
    await eventually(lambda: client.get(f"{run}/status").json()["status"] == "running")


def test_the_answer_to_a_start_tells_where_the_run_is(client: httpx2.Client, workspace: Path) -> None:
    answer = client.post("/api/runs/continuous", json=start_request(workspace))
    assert set(answer.json()) == {"runId", "streamKey", "meta"}
    assert answer.headers["location"] == f"/api/runs/{answer.json()['runId']}"
    cancelled = client.post(f"{answer.headers['location']}/cancel")
    assert cancelled.json() == {"runId": answer.json()["runId"], "status": "cancelling"}
    with client.stream("GET", f"{answer.headers['location']}/stream") as stream:
        assert stream.read().endswith(b"data: [DONE]\n\n")
    again = client.post(f"{answer.headers['location']}/cancel")
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "conflict"


def test_control_by_body_and_by_path_are_one(client: httpx2.Client, run: str) -> None:
    run_id = run.rsplit("/", 1)[1]
    refused = client.post(f"{run}/resume")
    assert refused.status_code == 409
    paused = client.post(f"{run}/control", json={"action": "pause", "reason": "lunch"})
    if paused.status_code == 409:  # still queued: only a run that works can pause
        with client.stream("GET", f"{run}/stream") as stream:
            for line in stream.iter_lines():
                if '"type":"turn_started"' in line:
                    break
        paused = client.post(f"{run}/pause", json={"reason": "lunch"})
    assert paused.json() == {"runId": run_id, "status": "pausing"}
    assert client.post(f"{run}/control", json={"action": "cancel"}).json()["status"] == "cancelling"


def test_a_listing_goes_on_where_its_cursor_points(client: httpx2.Client, workspace: Path) -> None:
    (workspace / "go").touch()
    started = [client.post("/api/runs/continuous", json=start_request(workspace)).json()["runId"] for _ in range(3)]
    for run_id in started:
        with client.stream("GET", f"/api/runs/{run_id}/stream") as stream:
            stream.read()
    seen: list[str] = []
    cursor: str | None = None
    while len(seen) < 3:
        page = client.get("/api/runs", params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
        seen += [one["runId"] for one in page["runs"]]
        cursor = page["nextCursor"]
    assert sorted(seen) == sorted(started)


async def test_the_next_prompt_and_the_turns_can_be_read(
    client: httpx2.Client, run: str, eventually: Eventually
) -> None:
    await output_is_whole(client, run, eventually)
    prompt = client.get(f"{run}/prompt").json()
    assert "=== CURRENT STATE (READ THIS FIRST) ===" in prompt["prompt"]
    assert prompt["bytes"] == len(prompt["prompt"].encode())
    (turn,) = client.get(f"{run}/turns").json()["turns"]
    assert (turn["turn"], turn["status"]) == (1, "running")
    assert client.get(f"{run}/turns/1").json()["responseId"] == turn["responseId"]
    missing = client.get(f"{run}/turns/2")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_the_output_is_read_whole_by_offset_and_by_range(
    client: httpx2.Client, run: str, eventually: Eventually
) -> None:
    await output_is_whole(client, run, eventually)
    path, size = f"{run}/turns/1/output", len(OUTPUT)
    whole = client.get(path)
    assert (whole.status_code, whole.content) == (200, OUTPUT)
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert (whole.headers["accept-ranges"], whole.headers["x-cody-output-size"]) == ("bytes", str(size))
    head = client.head(path)
    assert (head.content, head.headers["content-length"]) == (b"", str(size))

    rest = client.get(f"{path}?offset=399990")
    assert (rest.status_code, rest.content) == (200, OUTPUT[399_990:])
    nothing = client.get(f"{path}?offset={size}")
    assert (nothing.status_code, nothing.content) == (200, b"")
    beyond = client.get(f"{path}?offset={size + 1}")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert beyond.json()["error"] == {
        "code": "range_not_satisfiable",
        "message": f"offset {size + 1} is behind the end: there are {size} bytes now",
        "details": {"size": size},
    }

    part = client.get(path, headers={"Range": "bytes=8-300000"})
    assert (part.status_code, part.content) == (206, OUTPUT[8:300_001])
    assert part.headers["content-range"] == f"bytes 8-300000/{size}"
    assert client.get(path, headers={"Range": "bytes=-8"}).content == OUTPUT[-8:]
    assert client.get(path, headers={"Range": "bytes=400000-"}).status_code == 416
    assert client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"x"'}).status_code == 200
    assert client.get(f"{path}?offset=1", headers={"Range": "bytes=0-1"}).status_code == 400
    for wrong in ("-1", "x", "1.5", "9" * 30):
        assert client.get(f"{path}?offset={wrong}").status_code == 400


async def test_a_log_that_is_no_file_is_not_read(
    server: CodyServer, client: httpx2.Client, run: str, eventually: Eventually
) -> None:
    await output_is_whole(client, run, eventually)
    (log,) = (server.state_dir / "runs" / run.rsplit("/", 1)[1]).rglob("output.log")
    aside = log.rename(log.with_name("aside"))
    log.symlink_to(aside)
    answer = client.get(f"{run}/turns/1/output")
    log.unlink()
    aside.rename(log)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_same_key_and_request_give_the_same_run(client: httpx2.Client, workspace: Path) -> None:
    (workspace / "go").touch()

    def start(key: str, request: dict[str, Any]) -> httpx2.Response:
        return client.post("/api/runs/continuous", json=request, headers={"Idempotency-Key": key})

    key, request = str(uuid.uuid4()), start_request(workspace)
    first, again, other = start(key, request), start(key, request), start(str(uuid.uuid4()), request)
    assert first.json()["runId"] == again.json()["runId"] != other.json()["runId"]
    conflict = start(key, start_request(workspace, maxTurns=1))
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "conflict")
    for wrong in ("", "x" * 256):
        refused = start(wrong, request)
        assert (refused.status_code, refused.json()["error"]["details"]["fields"][0]["field"]) == (
            400,
            "Idempotency-Key",
        )
    for answer in (first, other):
        with client.stream("GET", f"{answer.headers['location']}/stream") as stream:
            stream.read()


def test_danger_needs_the_consent_of_the_server(client: httpx2.Client, workspace: Path) -> None:
    asked = start_request(workspace, sandbox="danger-full-access")
    answer = client.post("/api/runs/continuous", json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_a_fault_of_our_own_is_a_500_that_the_log_explains(
    server: CodyServer, client: httpx2.Client, store: Redis
) -> None:
    run = await OwnedRun.create(store)
    await store.hset(keys.turns(run.run_id), "1", b"secret garbage")
    answer = client.get(f"/api/runs/{run.run_id}/turns/1")
    await run.complete()
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "internal"
    assert "garbage" not in answer.text
    (logged,) = [json.loads(line) for line in server.stderr.splitlines() if error["details"]["requestId"] in line]
    assert logged["event"] == "request.failed"
    assert "Traceback" in logged["exception"]
