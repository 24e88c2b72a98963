"""submit, search, export, verify and projector: the real commands against a real server and a provider's wire."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from cody.pipeline.verify import verify_pipeline
from cody.settings import load_settings
from cody.store import dead_letters, keys
from tests.cli.command_line import CommandLine, read_until
from tests.conftest import Wait
from tests.pipeline.collector import collecting
from tests.pipeline.tool_calls import after_call, calling
from tests.pipeline.wire_server import WireServer, http_error, sse
from tests.ports import reserved_port
from tests.server.cody_server import CodyServer, running_server

SUBMIT = ("submit", "--provider", "openai", "--model", "gpt-5.5")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where OpenAI is for the server: a test plays it there."""
    with reserved_port() as reserved:
        yield reserved


@pytest.fixture(scope="module")
def asked(port: int) -> Iterator[CodyServer]:
    """One server for all: each test has a thread, or a run, of its own."""
    variables = {"OPENAI_API_KEY": "sk-test-0123456789", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}"}
    with running_server("asked", **variables) as server:
        yield server


@pytest.fixture
def asking(asked: CodyServer, repo: Path) -> CommandLine:
    """`cody` with that server."""
    return CommandLine(asked.state_dir, repo)


@pytest.fixture
async def wire(port: int) -> AsyncIterator[WireServer]:
    replies = sse("openai", "message"), sse("openai", "second_turn"), http_error("openai", "401")
    async with WireServer(*replies, port=port) as one:
        yield one


async def test_an_answer_is_printed_searched_exported_and_gone_on_with(
    asking: CommandLine, wire: WireServer, tmp_path: Path, eventually: Wait
) -> None:
    async def run(*arguments: str, code: int = 0) -> Any:
        return await asyncio.to_thread(asking, *arguments, code=code)

    done = await run(*SUBMIT, "Say hello", "--thread", "t1")
    assert done.stdout.startswith("Hello")
    assert done.stdout.endswith("\n")
    assert "thread t1" in done.stderr
    assert "tokens in" in done.stderr

    response = json.loads((await run(*SUBMIT, "And again", "--thread", "t1", "--json")).stdout)
    assert (response["status"], response["thread_id"]) == ("complete", "t1")
    assert "Say hello" in json.dumps(wire.requests[1].body["input"])

    async def both_are_archived() -> bool:
        lines = (await run("export", "thread:t1")).stdout.splitlines()
        return [json.loads(line).get("response", {}).get("status") for line in lines] == [None, "complete", "complete"]

    await eventually(both_are_archived, deadline_s=60)
    found = json.loads((await run("search", "hello", "--json")).stdout)
    assert found["hits"]
    assert "message" in (await run("search", "hello")).stdout
    target = tmp_path / "thread.md"
    await run("export", "thread:t1", "--format", "md", "-o", str(target))
    assert target.read_text().startswith("# Thread t1\n")
    assert [path.name for path in tmp_path.glob(".thread.md*")] == []

    failed = await run(*SUBMIT, "Once more", code=3)
    assert "error:" in failed.stderr


async def test_tools_that_the_model_may_use(asking: CommandLine, port: int, repo: Path) -> None:
    (repo / "notes.txt").write_text("one\ntwo\n")
    replies = (
        calling("openai", "read_file", 1, path="notes.txt"),
        calling("openai", "exec", 2, command="exit 3"),
        after_call("openai"),
    )
    tools = ("--tool", "exec", "--tool", "read_file")
    async with WireServer(*replies, port=port) as wire:
        done = await asyncio.to_thread(asking, *SUBMIT, "Read it", *tools)
    assert done.stdout == "2 + 40 = 42.\n"
    assert [line for line in done.stderr.splitlines() if line.startswith(("calls", "answered", "failed"))] == [
        "calls read_file",
        "answered: one",
        "calls exec",
        "failed: exit code 3",
    ]
    elsewhere = await asyncio.to_thread(asking, *SUBMIT, "x", *tools, "--working-dir", "/usr", code=1)
    assert "--working-dir" in elsewhere.stderr
    assert [tool["name"] for tool in wire.requests[0].body["tools"]] == ["read_file", "exec"]


def test_tools_that_are_none(alone: CommandLine) -> None:
    said = alone(*SUBMIT, "x", "--tool", "rm", code=2).stderr
    assert "no tool rm (there are: read_file, list_dir, apply_patch, exec)" in said
    assert "--tool" in alone(*SUBMIT, "x", "--working-dir", ".", code=2).stderr


async def test_a_run_is_exported_by_the_beginning_of_its_id(
    asking: CommandLine, repo: Path, tmp_path: Path, eventually: Wait
) -> None:
    agent = "import os, pathlib, sys; sys.stdin.read(); print('hello from the agent')"
    stop = "; pathlib.Path(os.environ['CODY_STOP_FILE']).write_text('done')"

    async def run(*arguments: str, code: int = 0) -> Any:
        return await asyncio.to_thread(asking, *arguments, code=code)

    begun = await run("run", "--agent", "command", "--detach", "--json", "--", sys.executable, "-c", agent + stop)
    run_id = json.loads(begun.stdout)["runId"]

    async def is_archived() -> bool:
        found = await asyncio.to_thread(asking, "export", run_id[:8], code=None)
        return found.returncode == 0 and '"type":"run_completed"' in found.stdout

    await eventually(is_archived, deadline_s=60)
    lines = [json.loads(line) for line in (await run("export", run_id[:8])).stdout.splitlines()]
    assert (lines[0]["kind"], lines[0]["run"]["runId"], lines[0]["run"]["status"]) == ("run", run_id, "completed")
    assert [line["turn"]["turn"] for line in lines if line["kind"] == "turn"] == [1]
    events = [line["event"] for line in lines if line["kind"] == "event"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert any("hello from the agent" in event.get("text", "") for event in events)
    target = tmp_path / "run.md"
    await run("export", run_id, "--format", "md", "-o", str(target))
    assert target.read_text().startswith("# Run ")
    assert "Turn 1" in target.read_text()
    assert "no run" in (await run("export", "ffffffff", code=1)).stderr


async def test_what_is_not_there(asking: CommandLine, tmp_path: Path) -> None:
    missing = await asyncio.to_thread(asking, "export", "thread:nothing", "-o", str(tmp_path / "x"), code=1)
    assert "no thread nothing" in missing.stderr
    assert not (tmp_path / "x").exists()
    assert "nothing found" in (await asyncio.to_thread(asking, "search", "zzzz")).stderr


async def test_ctrl_c_aborts_the_answer(asking: CommandLine, asked: CodyServer, port: int) -> None:
    silent = sse("openai", "message").broken("silence", after=b"response.output_text.delta")
    async with WireServer(silent, port=port):
        process = await asyncio.to_thread(asking.start, *SUBMIT, "Say hello")
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.read, 3) == "Hel"
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.to_thread(process.communicate, None, 60)
        assert (process.returncode, "aborted" in errors) == (4, True)
        response_id = errors.split()[1]
        with asked.client() as http:
            stream = await asyncio.to_thread(http.get, f"/api/v2/stream/{response_id}")
        assert "turn_aborted_by_user" in stream.text


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_verify_replays_where_there_is_no_key(alone: CommandLine, provider: str) -> None:
    keyless: dict[str, Any] = {"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": "", "REDIS_URL": "", "DATABASE_URL": ""}
    done = alone("verify", "--provider", provider, "--json", **keyless)
    told = json.loads(done.stdout)
    assert (told["status"], told["replayed"], told["redis"]) == ("complete", True, "a server of its own")
    assert (told["events"][0], told["events"][-1]) == ("response_start", "response_done")
    assert "item_delta" in told["events"]
    assert len(told["traceId"]) == 32
    shown = alone("verify", "--provider", provider, **keyless)
    assert "a recorded answer was played" in shown.stderr
    assert "status    complete" in shown.stdout


async def test_verify_leaves_nothing_behind(redis: Redis, valkey_url: str, tmp_path: Path) -> None:
    settings = load_settings(
        state_dir=tmp_path / "state", redis_url=valkey_url, database_url=f"sqlite:///{tmp_path}/archive.sqlite3"
    )
    found = await verify_pipeline(settings, "openai", None, timeout_s=60, replay=True)
    assert (found.response.status, found.redis) == ("complete", "REDIS_URL")
    left = [str(key) for key in await redis.keys("*")]
    assert [key for key in left if found.response.id in key or ":thread:" in key] == []

    from cody.pipeline.archive import Archive

    archive = Archive(settings.database_url, settings.state_dir)
    try:
        assert await archive.response(found.response.id) is None
        assert (await archive.search("pipeline works")).hits == []
    finally:
        await archive.aclose()


def test_the_trace_that_verify_prints_is_the_exported_one(alone: CommandLine) -> None:
    with collecting() as collector:
        variables: dict[str, Any] = {"REDIS_URL": "", **collector.environment}
        told = json.loads(alone("verify", "--replay", "--json", **variables).stdout)
    assert told["traced"]
    assert {"verify", "model.answer", "response.project", "sql.write"} <= {
        span.name for span in collector.spans if span.trace_id == told["traceId"]
    }


def test_a_projector_needs_a_redis_and_ends_when_told(alone: CommandLine, valkey_url: str) -> None:
    assert "REDIS_URL" in alone("projector", "run", code=2, REDIS_URL="").stderr
    process = alone.start("projector", REDIS_URL=valkey_url, DATABASE_URL="")
    try:
        read_until(process.stdout, "projecting into sqlite")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


async def test_a_worker_without_a_database_says_that_it_archives_nothing(
    alone: CommandLine, valkey_url: str, tmp_path: Path, eventually: Wait
) -> None:
    shared = tmp_path / "shared.sqlite3"
    for database_url in ("", f"sqlite:///{shared}"):
        process = alone.start("worker", REDIS_URL=valkey_url, DATABASE_URL=database_url)
        try:
            told = await asyncio.to_thread(read_until, process.stdout, "working on up to")
            if database_url:
                await eventually(shared.exists, "a worker with a database archives", deadline_s=60)
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.communicate, None, 60)
        assert process.returncode == 0
        assert ("archiving nothing" in told) == (not database_url)
    assert not (alone.state_dir / "archive.sqlite3").exists()


async def test_dead_letters_are_listed_retried_and_dropped(alone: CommandLine, redis: Redis, valkey_url: str) -> None:
    ids: list[str] = []
    for number in range(2):
        fields: dict[Any, Any] = {"responseId": f"r{number}", "entryId": "1-0", "code": "no_item", "reason": "why"}
        added = await redis.xadd(keys.DEAD_LETTERS, {**fields, "event": "{}"})
        ids.append(added.decode() if isinstance(added, bytes) else str(added))

    async def run(*arguments: str, code: int = 0) -> Any:
        return await asyncio.to_thread(alone, "projector", "dead-letters", *arguments, code=code, REDIS_URL=valkey_url)

    listed = json.loads((await run("list", "--json")).stdout)["letters"]
    assert [(one["id"], one["response_id"], one["reason"]) for one in listed] == [
        (ids[1], "r1", "why"),
        (ids[0], "r0", "why"),
    ]
    assert "no_item: why" in (await run("list", "--limit", "1")).stdout
    await run("drop", ids[0])
    gone = await run("retry", ids[1], code=1)
    assert "keeps the events of response r1 no more" in " ".join(gone.stderr.split())
    assert [one.id for one in await dead_letters.list_letters(redis)] == [ids[1]], "it is the last copy"
    stream = keys.response_events("r1")
    await redis.xadd(stream, {"event": "{}"}, id="7-0")
    await run("retry", ids[1])
    found: Any = await redis.xrange(stream)
    assert [entry_id for entry_id, _ in found] == [b"7-0", b"8-0"]
    assert await dead_letters.list_letters(redis) == []
    assert "no dead letter" in (await run("drop", ids[0], code=1)).stderr


@pytest.mark.parametrize("command", ["submit", "search", "export", "verify"])
def test_help_shows_examples(alone: CommandLine, command: str) -> None:
    assert f"cody {command}" in alone(command, "--help").stdout.partition("Examples:")[2]
