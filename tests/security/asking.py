"""What tests send: a run whose agent is a small program, and the wait for its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
from redis.asyncio import Redis

from tests.server.cody_server import OwnedRun

Eventually = Callable[..., Awaitable[None]]

START = "/api/runs/continuous"
LONG_BYTES = 24 << 20
"""More than a connection of this machine buffers."""
DONE = '"type":"run_completed"'


def start_body(workspace: Path, code: str = "pass", **config: Any) -> dict[str, Any]:
    """One turn of an agent that runs this code."""
    command = [sys.executable, "-c", code]
    return {
        "epicId": "current-epic",
        "config": {
            "workingDir": str(workspace),
            "agent": "command",
            "command": command,
            "loopDelaySec": 0,
            "maxTurns": 1,
            **config,
        },
    }


def ended_run(client: httpx2.Client, body: dict[str, Any], **headers: str) -> tuple[str, bytes]:
    """Start the run and read its stream to the end: its path, and the stream."""
    answer = client.post(START, json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    path = answer.headers["location"]
    return path, stream_of(client, path)


def stream_of(client: httpx2.Client, path: str) -> bytes:
    with client.stream("GET", f"{path}/stream") as stream:
        return stream.read()


async def long_file(
    client: httpx2.AsyncClient, redis: Redis, state_dir: Path, workspace: Path, eventually: Eventually, what: str
) -> str:
    """The path of an output, prompt or export that is more than is buffered on its way to a client that does not read."""
    if what == "export":
        run = await OwnedRun.create(redis)
        await run.add(LONG_BYTES // 100_000 + 1, text_bytes=100_000)
        await run.complete()
        path = f"/api/runs/{run.run_id}/export"

        async def archived() -> bool:
            async with client.stream("GET", path) as answer:
                return answer.status_code == 200 and [True async for one in answer.aiter_lines() if DONE in one] == [
                    True
                ]

        await eventually(archived, "the run is archived", deadline_s=60)
        return path
    answer = await client.post(START, json=start_body(workspace))
    path = answer.headers["location"]

    async def ended() -> bool:
        return bool((await client.get(path)).json()["status"] == "completed")

    await eventually(ended, "the run has ended")
    file = {"output": "output.log", "prompt": "prompt.md"}[what]
    os.truncate(state_dir / "runs" / path.rpartition("/")[2] / "turn-0001" / file, LONG_BYTES)
    return f"{path}/turns/1/{what}"
