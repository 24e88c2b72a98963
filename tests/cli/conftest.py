"""A server that a module shares, a repository with an epic, and `cody` in it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cody.client import CodyClient
from tests.cli.command_line import CommandLine
from tests.server.cody_server import CodyServer, running_server

Agent = Callable[[str], list[str]]

HEAD = """
import json, os, sys, time
from pathlib import Path
PROMPT = sys.stdin.read()
TURN = int(os.environ["CODY_TURN"])
EPIC = Path(".cody-harness/current-epic")
def say(**event): print(json.dumps({"__cody_event__": event}), flush=True)
def stop(text="done"): (EPIC / ".stop").write_text(text)
def wait_for(name):
    while not Path(name).exists(): time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[CodyServer]:
    with running_server("cli") as started:
        yield started


@pytest.fixture
async def client(server: CodyServer) -> AsyncIterator[CodyClient]:
    async with CodyClient(server.url, token=server.token) as opened:
        yield opened


@pytest.fixture
async def store(server: CodyServer) -> AsyncIterator[Redis]:
    """The Valkey of the shared server."""
    opened = server.redis()
    try:
        yield opened
    finally:
        await opened.aclose()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with an epic."""
    made = tmp_path / "repo"
    epic = made / ".cody-harness" / "current-epic"
    epic.mkdir(parents=True)
    (epic / "codys-log.md").write_text("# Log\n")
    (epic / "prompt.md").write_text("# Mission\n\nDo it.\n")
    (made / ".cody-harness" / "decision-log.md").write_text("# Decisions\n")
    return made


@pytest.fixture
def agent(repo: Path) -> Agent:
    """Makes the command of an agent that runs some Python; HEAD is there."""

    def make(code: str) -> list[str]:
        program = repo.parent / "agent.py"
        program.write_text(HEAD + textwrap.dedent(code))
        return [sys.executable, str(program)]

    return make


@pytest.fixture
def cody(server: CodyServer, repo: Path) -> CommandLine:
    """`cody` in the repository, with the shared server."""
    return CommandLine(server.state_dir, repo)


@pytest.fixture
def alone(tmp_path: Path, repo: Path) -> Iterator[CommandLine]:
    """`cody` in the repository, with a state folder of its own and no server yet; one that it starts is ended."""
    command = CommandLine(tmp_path / "state", repo)
    try:
        yield command
    finally:
        command.end_server()
