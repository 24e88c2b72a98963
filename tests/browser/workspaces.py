"""Repositories with an epic for the agents of these tests, and runs in them."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.server.cody_server import CodyServer

_HEAD = """
import json, os, sys, time
from pathlib import Path
TURN = int(os.environ["CODY_TURN"])
STOP = Path(os.environ["CODY_STOP_FILE"])
LOG = Path(os.environ["CODY_EPIC_DIR"]) / "codys-log.md"
def say(**event): print(json.dumps({"__cody_event__": event}))
def wait_for(name):
    sys.stdout.flush()
    while not Path(name).exists(): time.sleep(0.005)
"""

FOREVER = "wait_for('never')"
TURNS_THAT_WAIT = """
    say(type="step", n=TURN)
    wait_for(f"go-{TURN}")
"""
SPEAKS_OFTEN = """
    wait_for("go")
    for n in range(COUNT): say(type="step", n=n)
    STOP.write_text("done")
"""


@dataclass(frozen=True)
class Repository:
    """A folder that agents work in. They wait for files that the test makes: `go`."""

    path: Path

    @classmethod
    def make(cls, folder: Path) -> Repository:
        path = folder / "repo"
        epic = path / ".cody-harness" / "current-epic"
        epic.mkdir(parents=True)
        (epic / "codys-log.md").write_text("# Log\n", encoding="utf-8")
        (epic.parent / "decision-log.md").write_text("# Decisions\n", encoding="utf-8")
        return cls(path)

    def config(self, code: str, **more: Any) -> dict[str, Any]:
        """A run whose agent is this Python code."""
        program = self.path / "agent.py"
        program.write_text(_HEAD + textwrap.dedent(code), encoding="utf-8")
        command = [sys.executable, "-u", str(program)]
        return {"workingDir": str(self.path), "agent": "command", "command": command, "loopDelaySec": 0, **more}

    def start(self, server: CodyServer, code: str, **more: Any) -> str:
        """The id of a run of this code, started."""
        with server.client() as client:
            body = {"epicId": "current-epic", "config": self.config(code, **more)}
            answer = client.post("/api/runs/continuous", json=body).raise_for_status()
        return str(answer.json()["runId"])

    def give(self, name: str) -> None:
        """Make the file that an agent waits for."""
        (self.path / name).touch()


def read(server: CodyServer, path: str) -> Any:
    with server.client() as client:
        return client.get(path).raise_for_status().json()


def event_count(server: CodyServer, run_id: str) -> int:
    """How many events the ended run has, from its stream: their numbers are contiguous from 1."""
    with server.client() as client:
        text = client.get(f"/api/runs/{run_id}/stream", params={"from": "0"}).raise_for_status().text
    return sum(1 for line in text.splitlines() if line.startswith("id: "))


async def archived(server: CodyServer, run_id: str, seq: int) -> None:
    """Wait until the archive has the run's events up to this one."""
    with server.client() as client:
        async with asyncio.timeout(60):
            while f'"seq":{seq},' not in client.get(f"/api/runs/{run_id}/export").text.replace(" ", ""):
                await asyncio.to_thread(client.get, "/api/health")
