"""What tests send: a run whose agent is a small program, and the wait for its end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx2

START = "/api/runs/continuous"


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
