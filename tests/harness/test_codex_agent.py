"""CodexAgent against the real codex: what its options do, and conversations over several turns."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cody.contracts.run import TokenUsage
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import FileDeleted, FileWritten, TurnItem, WarningRaised
from harness.agents.base import AgentExit, Body, TurnOutcome, TurnRequest
from harness.agents.codex import CodexAgent
from harness.replay.codex_home import write_codex_home
from harness.replay.scenario import Answer, FunctionCall, Message, Scenario, Turn, Usage
from harness.replay.server import ReplayServer

LIMIT_S = 120.0


@dataclass
class Workplace:
    """A workspace and a CODEX_HOME, and the turns made there."""

    folder: Path

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    async def turn(
        self,
        server: ReplayServer | str,
        *,
        agent: CodexAgent | None = None,
        thread: str | None = None,
        used: TokenUsage | None = None,
        **config: object,
    ) -> tuple[list[Body], TurnOutcome]:
        self.workspace.mkdir(exist_ok=True)
        prompt = self.folder / "prompt.md"
        prompt.write_text("Go on.\n")
        url = server if isinstance(server, str) else server.base_url
        env = write_codex_home(self.folder / "home", url, env_key="MODEL_API_KEY", key="sk-of-the-model")
        request = TurnRequest(
            run_id="run",
            turn=1,
            config=RunConfig.model_validate({"working_dir": str(self.workspace), **config}),
            prompt=prompt,
            base_env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", **env},
            resume_thread=thread,
            resume_usage=used,
        )
        return await asyncio.to_thread(run, agent or CodexAgent(), request)


def run(agent: CodexAgent, request: TurnRequest) -> tuple[list[Body], TurnOutcome]:
    launch = agent.launch(request)
    reader = agent.reader(request)
    with launch.stdin.open("rb") as prompt:
        done = subprocess.run(
            launch.argv, cwd=launch.cwd, env=dict(launch.env), stdin=prompt, capture_output=True, timeout=LIMIT_S
        )
    readings = [reader.stdout_line(line) for line in done.stdout.split(b"\n") if line]
    readings += [reader.stderr_line(line) for line in done.stderr.split(b"\n") if line]
    outcome = reader.outcome(AgentExit(done.returncode, None))
    return [event for reading in readings for event in reading.events] + list(outcome.events), outcome


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def runs(*scripts: str) -> Scenario:
    """A turn in which the model runs the scripts and says a word. They end with 0: codex does not report those that the
    sandbox made fail."""
    calls = [
        Answer(items=(FunctionCall(type="function_call", name="exec_command", arguments={"cmd": f"{script}; true"}),))
        for script in scripts
    ]
    word = Answer(items=(Message(type="message", text="Done."),), usage=Usage(input=10, output=5))
    return Scenario(name="runs", on_exhausted="repeat_last", turns=(Turn(responses=(*calls, word)),))


def outputs(events: Sequence[Body]) -> list[str]:
    items = [event.item for event in events if isinstance(event, TurnItem)]
    return [str(item["output"]) for item in items if item["type"] == "function_call_output"]


async def test_patches_are_told_as_files_of_the_workspace(place: Workplace) -> None:
    async with ReplayServer("commands") as server:
        events, outcome = await place.turn(server)
    assert outcome.error is None
    changed = [event for event in events if isinstance(event, FileWritten | FileDeleted) and event.source == "agent"]
    assert [(event.type, event.path) for event in changed] == [
        ("file_written", "notes.txt"),
        ("file_written", "scratch.txt"),
        ("file_written", "notes.txt"),
        ("file_deleted", "scratch.txt"),
    ]


async def test_paths_are_relative_where_the_workspace_is_a_link(place: Workplace) -> None:
    (place.folder / "real").mkdir()
    place.workspace.symlink_to(place.folder / "real")
    async with ReplayServer("commands") as server:
        events, _ = await place.turn(server)
    paths = {event.path for event in events if isinstance(event, FileWritten)}
    assert paths == {"notes.txt", "scratch.txt"}


async def test_the_models_key_does_not_reach_commands(place: Workplace) -> None:
    async with ReplayServer(runs("env; echo end of env")) as server:
        events, _ = await place.turn(server, env={"PLAIN": "seen"})
    (printed,) = outputs(events)
    assert "PLAIN=seen" in printed
    assert "end of env" in printed
    assert "sk-of-the-model" not in printed


@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
@pytest.mark.parametrize("sandbox", ["read-only", "workspace-write"])
async def test_the_sandbox_holds_in_each_turn(place: Workplace, sandbox: str, resumed: bool) -> None:
    script = "touch inside && echo inside is written; touch /var/outside-of-all && echo outside is written"
    async with ReplayServer(runs(script)) as server:
        events, outcome = await place.turn(server, sandbox=sandbox)
        if resumed:
            events, outcome = await place.turn(server, sandbox=sandbox, thread=outcome.thread_id)
    assert outcome.error is None
    (printed,) = outputs(events)
    assert ("inside is written" in printed) == (sandbox == "workspace-write")
    assert "outside is written" not in printed


@pytest.mark.parametrize("commits", [False, True])
async def test_commits_are_possible_only_where_asked_for(place: Workplace, commits: bool) -> None:
    place.workspace.mkdir()
    subprocess.run(["git", "init", "-q", str(place.workspace)], check=True)
    commit = "git -c user.name=n -c user.email=e commit -qm first --allow-empty && echo it is committed"
    async with ReplayServer(runs(commit)) as server:
        events, _ = await place.turn(server, agent=CodexAgent(commits=commits))
    (printed,) = outputs(events)
    assert ("it is committed" in printed) == commits


async def test_each_turn_of_a_conversation_counts_its_own_tokens(place: Workplace) -> None:
    async with ReplayServer("resume") as server:
        _, first = await place.turn(server)
        _, second = await place.turn(server, thread=first.thread_id, used=first.thread_usage)
    assert (first.error, second.error) == (None, None)
    assert first.thread_id == second.thread_id
    assert second.last_message == "Turn two is done."
    assert (first.usage.input_tokens, first.usage.output_tokens) == (300, 20)
    assert (second.usage.input_tokens, second.usage.output_tokens) == (700, 20)
    assert second.thread_usage is not None
    assert second.thread_usage.input_tokens == 1000


async def test_a_conversation_that_is_gone_is_a_usage_error(place: Workplace) -> None:
    async with ReplayServer("one_message") as server:
        _, outcome = await place.turn(server, thread="01a1fabf-4d00-72e2-9524-dc7f7cfabec3")
    assert outcome.error is not None
    assert outcome.error.code == "agent_usage_error"
    assert "session 'fresh'" in outcome.error.message


async def test_a_conversation_begun_in_silence_is_noticed(place: Workplace) -> None:
    async with ReplayServer("one_message") as server:
        events, outcome = await place.turn(server, thread="no-such-thread")
    assert outcome.error is not None
    assert outcome.error.code == "resume_mismatch"
    assert "resume_mismatch" in {event.code for event in events if isinstance(event, WarningRaised)}


async def test_no_repository_and_strange_names_are_fine(place: Workplace) -> None:
    async with ReplayServer("one_message") as server:
        for model in ('a "quoted" model', "$(model)"):
            _, outcome = await place.turn(server, model=model, reasoning="high")
            assert outcome.error is None
        assert [seen.model for seen in server.requests] == ['a "quoted" model', "$(model)"]


async def test_a_broken_config_is_told_with_codex_own_words(place: Workplace) -> None:
    async with ReplayServer("one_message") as server:
        await place.turn(server)
        broken = place.folder / "broken"
        broken.mkdir()
        (broken / "config.toml").write_text("x = [\n")
        _, outcome = await place.turn(server, env={"CODEX_HOME": str(broken)})
    assert outcome.error is not None
    assert outcome.error.code == "agent_usage_error"
    assert "unclosed array" in outcome.error.message


async def test_a_refused_connection_can_be_tried_again(place: Workplace) -> None:
    with socket.socket() as deaf:  # it keeps the port, so that nobody else listens there
        deaf.bind(("127.0.0.1", 0))
        _, outcome = await place.turn(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1")
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("agent_connection_refused", True)


async def test_a_cut_stream_can_be_tried_again(place: Workplace) -> None:
    async with ReplayServer("drop") as server:
        _, outcome = await place.turn(server)
        _, again = await place.turn(server)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("agent_stream_dropped", True)
    assert outcome.last_message == "Said before the cut."
    assert again.error is None
