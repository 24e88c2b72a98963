"""What every agent keeps: started by its Launch, read by its reader, judged by how its real process ended.

Codex is the real binary; only the model behind it is played back, by harness.replay.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import psutil
import pytest

from cody.contracts.run_config import AgentName, RunConfig
from cody.contracts.run_events import TestRunCompleted, TokenUsageReported, TurnItem, WarningRaised, payload_json
from cody.errors import AgentUnavailable
from harness.agents.base import Agent, AgentExit, Body, Reading, TurnOutcome, TurnReader, TurnRequest
from harness.agents.codex import CodexAgent
from harness.agents.registry import agents
from harness.replay.codex_home import write_codex_home
from harness.replay.scenario import Answer, FunctionCall, Message, Scenario, Usage
from harness.replay.scenario import Turn as ReplayTurn
from harness.replay.server import ReplayServer

Turn = Literal["completes", "fails", "hangs"]
AGENTS: tuple[AgentName, ...] = get_args(AgentName)
LIMIT_S = 120.0

PROGRAM = """
    import json, signal, sys
    prompt = sys.stdin.read()
    tell = lambda **event: print(json.dumps({"__cody_event__": event}), flush=True)
    if sys.argv[1] == "hangs":
        tell(type="about.to.hang")
        signal.pause()
    print("read", len(prompt), "characters", file=sys.stderr)
    if sys.argv[1] == "fails":
        sys.exit("the \\x1b[31mkey\\x1b[0m is wrong")
    tell(type="token_usage", inputTokens=1000, outputTokens=200)
    tell(type="test_run_completed", passed=3, failed=1)
    print("All is done.")
"""
TESTS = "echo '=========== 1 failed, 3 passed in 0.12s ==========='"
COMPLETES = Scenario(
    name="completes",
    turns=(
        ReplayTurn(
            responses=(
                Answer(
                    items=(FunctionCall(type="function_call", name="exec_command", arguments={"cmd": "sh tests.sh"}),),
                    usage=Usage(input=1000, output=20),
                ),
                Answer(items=(Message(type="message", text="All is done."),), usage=Usage(input=1100, output=10)),
            )
        ),
    ),
)
SCENARIOS: dict[Turn, Scenario | str] = {"completes": COMPLETES, "fails": "error_401", "hangs": "slow"}
NOISE = b"\x00\xff\xfe\n{\n{}\n[]\nnull\n\r\n" + b"x" * 100_000 + b'\n{"type":"no.such.event"}\n{"__cody_event__":7}\n'


@dataclass
class Played:
    """A turn that was run for real."""

    outcome: TurnOutcome
    readings: list[Reading] = field(default_factory=list)

    @property
    def events(self) -> list[Body]:
        return [event for reading in self.readings for event in reading.events] + list(self.outcome.events)


@pytest.fixture
def marker() -> Iterator[str]:
    """A value in the environment of everything that a test starts; what carries it at the end is killed."""
    value = f"contract-{uuid.uuid4().hex}"
    yield value
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("CODY_RUN_ID") == value:
                process.kill()
        except psutil.Error:
            continue


@asynccontextmanager
async def prepared(name: AgentName, turn: Turn, folder: Path, marker: str) -> AsyncIterator[TurnRequest]:
    """A request whose turn completes, fails, or hangs until it is killed."""
    workspace = folder / "workspace"
    workspace.mkdir()
    prompt = folder / "prompt.md"
    prompt.write_text("Go on.\n")
    base = TurnRequest(
        run_id="run",
        turn=1,
        config=RunConfig(working_dir=str(workspace)),
        prompt=prompt,
        base_env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "CODY_RUN_ID": marker},
    )
    if name == "command":
        program = folder / "agent.py"
        program.write_text(textwrap.dedent(PROGRAM))
        command = [sys.executable, str(program), turn]
        yield replace(base, config=RunConfig(working_dir=str(workspace), agent="command", command=command))
        return
    (workspace / "tests.sh").write_text(TESTS)
    async with ReplayServer(SCENARIOS[turn]) as server:
        env = write_codex_home(folder / "codex-home", server.base_url)
        yield replace(base, config=RunConfig(working_dir=str(workspace), model="gpt-5.5", env=env))


def run(
    agent: Agent,
    request: TurnRequest,
    *,
    before: tuple[str, ...] = ("true",),
    kill_at: Callable[[Body], bool] | None = None,
) -> Played:
    """Start the turn as its Launch says, read it, judge its end. The reader hears `before`, a command, first."""
    launch = agent.launch(request)
    reader = agent.reader(request)
    first = subprocess.run(before, capture_output=True, check=True, timeout=LIMIT_S).stdout
    readings = [reader.stdout_line(line) for line in first.split(b"\n")[:-1]]
    stderr = request.prompt.with_name("stderr")
    with launch.stdin.open("rb") as prompt, stderr.open("wb") as errors:
        process = subprocess.Popen(
            launch.argv, cwd=launch.cwd, env=dict(launch.env), stdin=prompt, stdout=subprocess.PIPE, stderr=errors
        )
    assert process.stdout is not None
    with process, process.stdout as lines:
        for line in lines:
            reading = reader.stdout_line(line.rstrip(b"\n"))
            readings.append(reading)
            if kill_at and any(kill_at(event) for event in reading.events):
                process.kill()
        code = process.wait(LIMIT_S)
    readings += [reader.stderr_line(line) for line in stderr.read_bytes().splitlines()]
    exit = AgentExit(None, -code) if code < 0 else AgentExit(code, None)
    return Played(reader.outcome(exit), readings)


async def played(
    name: AgentName, turn: Turn, folder: Path, marker: str, *, kill_at: Callable[[Body], bool] | None = None
) -> Played:
    async with prepared(name, turn, folder, marker) as request:
        return await asyncio.to_thread(run, agents()[name], request, kill_at=kill_at)


def hangs(event: Body) -> bool:
    """The event after which the turn waits: codex' command has begun, the program says so."""
    if isinstance(event, TurnItem):
        return event.item.get("type") == "function_call"
    return event.type == "custom"


def test_every_name_of_the_contract_has_its_agent() -> None:
    assert {name: agent.name for name, agent in agents().items()} == {name: name for name in AGENTS}


@pytest.mark.parametrize("name", AGENTS)
async def test_a_launch_can_be_started_as_it_is(name: AgentName, tmp_path: Path, marker: str) -> None:
    async with prepared(name, "completes", tmp_path, marker) as request:
        config = request.config.model_copy(update={"env": {**request.config.env, "LANG": "from config.env"}})
        launch = agents()[name].launch(replace(request, config=config))
    assert os.path.isabs(launch.argv[0])
    assert os.access(launch.argv[0], os.X_OK)
    assert launch.cwd == Path(request.config.working_dir)
    assert launch.stdin == request.prompt
    assert launch.env == {**request.base_env, **config.env}
    assert not any("Go on." in argument for argument in launch.argv)


@pytest.mark.parametrize("name", AGENTS)
async def test_a_turn_completes_with_usage_tests_and_a_last_message(
    name: AgentName, tmp_path: Path, marker: str
) -> None:
    turn = await played(name, "completes", tmp_path, marker)
    assert turn.outcome.error is None
    expected = {"codex": (2100, 30), "command": (1000, 200)}[name]
    assert (turn.outcome.usage.input_tokens, turn.outcome.usage.output_tokens) == expected
    assert turn.outcome.usage.total_tokens == sum(expected)
    (reported,) = [event for event in turn.events if isinstance(event, TokenUsageReported)]
    assert reported == TokenUsageReported(**turn.outcome.usage.model_dump())
    (tests,) = [event for event in turn.events if isinstance(event, TestRunCompleted)]
    assert (tests.passed, tests.failed) == (3, 1)
    assert turn.outcome.last_message == "All is done."
    assert all(payload_json(event) for event in turn.events)


@pytest.mark.parametrize("name", AGENTS)
async def test_a_turn_fails_with_a_reason_and_what_the_agent_said(name: AgentName, tmp_path: Path, marker: str) -> None:
    turn = await played(name, "fails", tmp_path, marker)
    error = turn.outcome.error
    assert error is not None
    assert error.code == {"codex": "agent_auth", "command": "agent_exited"}[name]
    assert error.retryable is False
    assert {"codex": "Incorrect API key", "command": "the key is wrong"}[name] in error.message
    assert turn.outcome.usage.total_tokens == 0


@pytest.mark.parametrize("name", AGENTS)
async def test_a_killed_turn_names_the_signal(name: AgentName, tmp_path: Path, marker: str) -> None:
    turn = await played(name, "hangs", tmp_path, marker, kill_at=hangs)
    assert turn.outcome.error is not None
    assert turn.outcome.error.code == "agent_killed"
    assert signal.Signals.SIGKILL.name in turn.outcome.error.message
    opened = [event.item["call_id"] for event in turn.events if isinstance(event, TurnItem) and hangs(event)]
    closed = [event.item["call_id"] for event in turn.outcome.events if isinstance(event, TurnItem)]
    assert closed == opened, "a call that was cut off is closed"


@pytest.mark.parametrize("name", AGENTS)
async def test_bytes_that_mean_nothing_are_shown_and_change_nothing(
    name: AgentName, tmp_path: Path, marker: str
) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(NOISE)
    async with prepared(name, "completes", tmp_path, marker) as request:
        turn = await asyncio.to_thread(run, agents()[name], request, before=("cat", str(noise)))
    heard = turn.readings[: NOISE.count(b"\n")]
    assert [reading.is_output for reading in heard].count(False) == (1 if name == "codex" else 0), (
        "only its own unknown"
    )
    assert turn.outcome.error is None
    assert turn.outcome.usage.input_tokens == {"codex": 2100, "command": 1000}[name]
    assert turn.outcome.last_message == "All is done."


@pytest.mark.parametrize("name", AGENTS)
async def test_a_missing_program_is_said_before_anything_starts(name: AgentName, tmp_path: Path, marker: str) -> None:
    async with prepared(name, "completes", tmp_path, marker) as request:
        gone = str(tmp_path / "gone")
        agent: Agent = CodexAgent(gone) if name == "codex" else agents()[name]
        if name == "command":
            request = replace(request, config=request.config.model_copy(update={"command": [gone]}))
        with pytest.raises(AgentUnavailable, match="gone"):
            agent.launch(request)


@pytest.mark.parametrize("name", AGENTS)
async def test_the_conversation_is_known_where_there_is_one(name: AgentName, tmp_path: Path, marker: str) -> None:
    turn = await played(name, "completes", tmp_path, marker)
    assert (turn.outcome.thread_id is not None) == (name == "codex")
    assert (turn.outcome.thread_usage is not None) == (name == "codex")
    assert not any(isinstance(event, WarningRaised) for event in turn.events)


def test_readers_are_readers(tmp_path: Path) -> None:
    request = TurnRequest("run", 1, RunConfig(working_dir=str(tmp_path)), tmp_path / "prompt", {})
    for agent in agents().values():
        reader: TurnReader = agent.reader(request)
        assert reader.thread_id is None
