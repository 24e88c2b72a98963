"""Start here: one run from its request to the archive, as a client of the API lives it. Each line below works for real.

A server process of its own (with its own Valkey and SQLite), a repository with an epic, and an agent that is a small program.
What each part promises in detail is tested in the folder that has its name.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cody.client.api import CodyClient
from cody.contracts.run import StartRunRequest
from cody.contracts.run_events import RunEvent
from tests.server.cody_server import CodyServer, launch

AGENT = """
import os, sys, time
from pathlib import Path

prompt = sys.stdin.read()                                   # the mission, the logs, the guides
epic, turn = Path(os.environ["CODY_EPIC_DIR"]), int(os.environ["CODY_TURN"])
Path(f"chapter-{turn}.md").write_text("words")
with open(epic / "codys-log.md", "a") as log:
    log.write(f"- chapter {turn} is written\\n")
print(f"===== {turn} passed in 0.10s =====", flush=True)
while turn == 1 and not Path("go-on").exists():
    time.sleep(0.01)
if turn == 3:
    (epic / ".stop").write_text("the book is finished")     # the only way for an agent to end its run
"""


@pytest.fixture
def server() -> Iterator[CodyServer]:
    with tempfile.TemporaryDirectory(prefix="cody-tour-") as folder:
        started = launch(Path(folder))
        try:
            assert started.url, started.stderr
            yield started
        finally:
            started.discard()


async def test_a_book_is_written(server: CodyServer, tmp_path: Path) -> None:
    # A repository with an epic: what the work is, and a log that the agent keeps.
    epic = tmp_path / ".cody-harness" / "current-epic"
    epic.mkdir(parents=True)
    (epic / "prompt.md").write_text("Write a book of three chapters.")
    (epic / "codys-log.md").write_text("# Log\n")
    (tmp_path / "agent.py").write_text(AGENT)

    async with CodyClient(server.url, token=server.token) as cody:
        # The answer comes at once; the work goes on in the background.
        config = {
            "workingDir": str(tmp_path),
            "agent": "command",
            "command": [sys.executable, "agent.py"],
            "loopDelaySec": 0,
        }
        run = await cody.start(StartRunRequest.model_validate({"epicId": "current-epic", "config": config}))
        assert run.meta.status in {"queued", "running"}

        seen: list[RunEvent] = []
        news, paused = asyncio.Event(), asyncio.Event()

        async def watch() -> None:
            """What a dashboard does: the events as they come, each once, in order, across lost connections."""
            async for _, event in cody.stream(run.run_id):
                seen.append(event)
                news.set()
                if event.type == "run_paused":
                    paused.set()

        watching = asyncio.create_task(watch())

        # A pause is accepted while the turn runs, and takes effect at its end.
        while not any(event.type == "test_run_completed" for event in seen):
            news.clear()
            await asyncio.wait_for(news.wait(), 60)
        assert (await cody.control(run.run_id, "pause", "let me read it first")).status == "pausing"
        (tmp_path / "go-on").touch()
        await asyncio.wait_for(paused.wait(), 60)
        assert (await cody.snapshot(run.run_id)).current_turn == 1

        # Resumed, it works until the agent leaves the stop file.
        await cody.control(run.run_id, "resume")
        await asyncio.wait_for(watching, 60)

        # Everything was told, numbered without a gap.
        assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
        types = [event.type for event in seen]
        assert types[:3] == ["run_queued", "run_started", "turn_started"]
        assert types[-2:] == ["completion_detected", "run_completed"]
        for told in ("file_written", "log_updated", "test_run_completed", "run_pausing", "run_paused", "run_resumed"):
            assert told in types

        # The numbers, the turns, and the raw output of each.
        end = await cody.snapshot(run.run_id)
        assert (end.status, end.completion.source, end.completion.line) == (
            "completed",
            "stop_file",
            "the book is finished",
        )
        assert (end.stats.turns, end.stats.tests_passed) == (3, 1 + 2 + 3)
        turns = await cody.turns(run.run_id)
        assert [turn.status for turn in turns] == ["completed"] * 3
        assert "chapter-2.md" in turns[1].files
        output = b"".join([piece async for piece in cody.output(run.run_id, 2)])
        assert b"===== 2 passed" in output
        assert (tmp_path / "chapter-3.md").read_text() == "words"
