"""The real `cody sync` of one laptop, and the server that it sends to, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cody.tokens import TokenStore
from tests.ports import reserved_port
from tests.sync.serving import HOLD

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-P", "-m", "cody.cli"]
DEADLINE_S = 90.0


def environment(state_dir: Path, **extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CODY_") and name != "REDIS_URL"}
    return {**kept, "CODY_STATE_DIR": str(state_dir), "PYTHONPATH": str(ROOT), **extra}


@dataclass
class Laptop:
    """`state_dir` is its own; the token is that of the other side."""

    state_dir: Path
    url: str
    token: str

    def command(self, *arguments: str, to: str | None = None) -> list[str]:
        return [*COMMAND, "sync", *arguments, *(["--to", to or self.url] if to != "" else [])]

    def __call__(self, *arguments: str, code: int = 0, to: str | None = None, **extra: str) -> str:
        """Run `cody sync ...` to its end; what it printed."""
        env = environment(self.state_dir, **{"CODY_SYNC_TOKEN": self.token, **extra})
        done = subprocess.run(
            self.command(*arguments, to=to),
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self(*arguments, "--json", **options))

    def start(self, *arguments: str, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Begin a command; the caller ends it."""
        env = environment(self.state_dir, CODY_SYNC_TOKEN=self.token)
        return subprocess.Popen(
            self.command(*arguments),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )

    def journals(self) -> list[dict[str, Any]]:
        """What it knows of pushes that have not ended."""
        found: list[dict[str, Any]] = self.json("list", to="")["pushes"]
        return found


@dataclass
class Team:
    """A server of the sync API in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    state_dir: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def token(self) -> str:
        value = TokenStore(self.state_dir).local_value()
        assert value is not None
        return value

    def hold(self, index: int) -> None:
        """Take no chunk from this one on, until `let_go`. To be called before anything is sent."""
        (self.state_dir / HOLD).write_text(str(index), encoding="ascii")

    def let_go(self) -> None:
        (self.state_dir / HOLD).unlink()

    def appended(self) -> int:
        """How often a chunk was sent to it, by its audit log."""
        return self._requests("/chunks")

    def started(self) -> int:
        """How many sources were started."""
        return self._requests("/sources")

    def _requests(self, ending: str) -> int:
        path = self.state_dir / "audit.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return sum(json.loads(line)["action"].endswith(ending) for line in lines)


@contextmanager
def team_server(database_url: str, state_dir: Path) -> Iterator[Team]:
    """Ready; killed afterwards. Its port stays its own until then: another one can be started in its place."""
    with reserved_port() as port, team_server_at(port, database_url, state_dir) as team:
        yield team


@contextmanager
def team_server_at(port: int, database_url: str, state_dir: Path) -> Iterator[Team]:
    """The same, at a port that was reserved."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sync.serving", database_url, str(state_dir), str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("http://"))
        yield Team(process, line.strip(), state_dir)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
