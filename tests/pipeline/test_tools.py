"""Answers whose model uses Cody's tools: from the submit over the wire, the disk and Redis to SQL, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from cody.contracts.responses import FunctionCall, FunctionCallOutput, Response
from cody.contracts.stream_events import ItemDone
from cody.pipeline.hydrator import events_of
from cody.pipeline.providers.tool_loop import MAX_REQUESTS
from tests.conftest import Wait
from tests.pipeline.serving import Served, SharedServer, kinds, served, shared_server, texts
from tests.pipeline.tool_calls import after_call, calling
from tests.pipeline.wire_server import WireServer, sse

BOTH = pytest.mark.parametrize("provider_id", ["openai", "anthropic"])
ADD = {
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
}
PATCH = "*** Begin Patch\n*** Update File: notes.txt\n-two\n+zwei\n*** Add File: new.txt\n+hello\n*** End Patch"
ANSWER_ENDS_WITH = ["function_call", "function_call_output", "message"]


@pytest.fixture(scope="module")
def daring() -> Iterator[SharedServer]:
    """A server that tests of this module share and that lets tools work without a sandbox."""
    with shared_server(CODY_ALLOW_DANGER="1") as one:
        yield one


def repository(one: Served) -> Path:
    made = one.folder / "repo"
    made.mkdir()
    (made / "notes.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    return made


def outputs(response: Response) -> list[tuple[str, bool]]:
    found = [item for item in response.output_items if isinstance(item, FunctionCallOutput)]
    return [(item.output, item.success) for item in found]


@BOTH
async def test_hp_05_the_model_reads_a_file_and_answers(shared: SharedServer, provider_id: str) -> None:
    async with (
        shared.wire(provider_id, calling(provider_id, "read_file", path="notes.txt"), after_call(provider_id)) as wire,
        shared.visited() as one,
    ):
        folder = repository(one)
        response = await one.answered(provider_id, "What is in it?", tools=["read_file"], workingDir=str(folder))
    assert kinds(response) == ["message of user", *ANSWER_ENDS_WITH]
    assert (response.status, response.finish_reason) == ("complete", "stop")
    assert outputs(response) == [("one\ntwo\nthree\n", True)]
    call = response.output_items[1]
    assert isinstance(call, FunctionCall)
    assert json.loads(call.arguments) == {"path": "notes.txt"}
    assert [tool["name"] for tool in wire.requests[0].body["tools"]] == ["read_file"]
    assert len(wire.requests) == 2
    assert "one\\ntwo\\nthree" in json.dumps(wire.requests[1].body)
    assert "one\\ntwo" not in json.dumps(wire.requests[0].body)


@BOTH
async def test_each_tool_in_one_answer_and_the_thread_remembers(shared_sqlite: SharedServer, provider_id: str) -> None:
    async with (
        shared_sqlite.wire(
            provider_id,
            calling(provider_id, "list_dir", 1),
            calling(provider_id, "apply_patch", 2, input=PATCH),
            calling(provider_id, "exec", 3, command="cat notes.txt new.txt"),
            after_call(provider_id),
            sse(provider_id, "second_turn"),
        ) as wire,
        shared_sqlite.visited() as one,
    ):
        folder = repository(one)
        tools = ["exec", "apply_patch", "list_dir", "read_file"]
        response = await one.answered(provider_id, "Translate", tools=tools, workingDir=str(folder))
        assert outputs(response) == [
            ("notes.txt", True),
            ("M notes.txt\nA new.txt", True),
            ("exit code 0\none\nzwei\nthree\nhello\n", True),
        ]
        assert kinds(response) == ["message of user", *["function_call", "function_call_output"] * 3, "message"]
        assert (folder / "new.txt").read_text() == "hello\n"
        assert response.usage is not None
        told = await one.answered(provider_id, "And now?", threadId=response.thread_id)
    assert kinds(told) == ["message of user", "message"]
    sent = json.dumps(wire.requests[4].body)
    for said in ("Translate", "zwei", "And now?"):
        assert said in sent
    assert sent.count("_3") >= 2, "the last call and its output are told of again"


async def test_a_model_that_is_refused_goes_another_way(shared_sqlite: SharedServer) -> None:
    async with (
        shared_sqlite.wire(
            "openai",
            calling("openai", "read_file", 1, path="../secret.txt"),
            calling("openai", "read_file", 2, path="link/secret.txt"),
            calling("openai", "exec", 3, command="cat notes.txt"),
            calling("openai", "read_file", 4, file="notes.txt"),
            after_call("openai"),
        ) as wire,
        shared_sqlite.visited() as one,
    ):
        folder = repository(one)
        (one.folder / "secret.txt").write_text("not for models")
        (folder / "link").symlink_to(one.folder)
        response = await one.answered(prompt="Read all", tools=["read_file"], workingDir=str(folder))
    assert response.status == "complete"
    assert [success for _, success in outputs(response)] == [False] * 4
    for part, (text, _) in zip(("`..`", "link", "no tool 'exec'", "file"), outputs(response), strict=True):
        assert part in text
    assert "not for models" not in json.dumps([request.body for request in wire.requests])


async def test_what_a_tool_reads_is_cleaned_of_the_servers_secrets(shared_sqlite: SharedServer) -> None:
    async with (
        shared_sqlite.wire("openai", calling("openai", "read_file", path="env"), after_call("openai")) as wire,
        shared_sqlite.visited() as one,
    ):
        folder = repository(one)
        (folder / "env").write_text("OPENAI_API_KEY=sk-openai-not-real\n")
        response = await one.answered(prompt="Read", tools=["read_file"], workingDir=str(folder))
    assert outputs(response) == [("OPENAI_API_KEY=[redacted:OPENAI_API_KEY]\n", True)]
    assert "sk-openai-not-real" not in json.dumps(wire.requests[1].body)


async def test_a_call_of_the_callers_tool_ends_the_answer(shared_sqlite: SharedServer) -> None:
    """Cody carries out what is its own; the other is the caller's, who goes on with the output."""
    async with (
        shared_sqlite.wire(
            "openai",
            calling("openai", "read_file", 1, path="notes.txt"),
            calling("openai", "add", 2, a=1, b=2),
            after_call("openai"),
        ) as wire,
        shared_sqlite.visited() as one,
    ):
        fields: dict[str, Any] = {"tools": ["read_file", ADD], "workingDir": str(repository(one))}
        asked = await one.answered(prompt="Read, then add", **fields)
        assert kinds(asked) == ["message of user", "function_call", "function_call_output", "function_call"]
        assert (asked.status, asked.finish_reason) == ("complete", "tool_calls")
        call = asked.output_items[-1]
        assert isinstance(call, FunctionCall)
        assert call.name == "add"
        told = [{"callId": call.call_id, "output": "3"}]
        response = await one.answered(prompt=None, threadId=asked.thread_id, toolOutputs=told, **fields)
    assert kinds(response) == ["function_call_output of user", "message"]
    assert {tool["name"] for tool in wire.requests[0].body["tools"]} == {"read_file", "add"}


async def test_a_model_that_calls_in_circles_is_stopped(shared_sqlite: SharedServer) -> None:
    rounds = [calling("openai", "list_dir", number) for number in range(1, MAX_REQUESTS + 2)]
    async with shared_sqlite.wire("openai", *rounds) as wire, shared_sqlite.visited() as one:
        response = await one.answered(prompt="Look", tools=["list_dir"], workingDir=str(repository(one)))
    assert len(wire.requests) == MAX_REQUESTS
    assert (response.status, response.finish_reason) == ("complete", "tool_calls")
    assert len(outputs(response)) == MAX_REQUESTS - 1


async def test_a_provider_that_fails_after_the_tool_has_run(shared_sqlite: SharedServer) -> None:
    reply = after_call("openai").broken("cut", after=b"response.output_text.delta")
    async with (
        shared_sqlite.wire("openai", calling("openai", "list_dir"), reply),
        shared_sqlite.visited() as one,
    ):
        response = await one.answered(prompt="Look", tools=["list_dir"], workingDir=str(repository(one)))
    assert response.error is not None
    assert (response.status, response.error.code) == ("error", "stream_dropped")
    assert outputs(response) == [("notes.txt", True)]


async def test_where_tools_may_work(shared_sqlite: SharedServer) -> None:
    async with shared_sqlite.visited() as one:
        folder = repository(one)
        (one.folder / "way-out").symlink_to("/usr")
        body = {"prompt": "x", "model": "gpt-5.5", "providerId": "openai", "tools": ["exec"]}
        for fields, status, named in (
            ({"workingDir": "/usr"}, 403, "workingDir"),
            ({"workingDir": f"{folder}/../../../usr"}, 403, "workingDir"),
            ({"workingDir": str(one.folder / "way-out")}, 403, "workingDir"),
            ({"workingDir": str(folder / "missing")}, 400, "workingDir"),
            ({"workingDir": str(folder / "notes.txt")}, 400, "workingDir"),
            ({"workingDir": "repo"}, 400, "workingDir"),
            ({"workingDir": f"{folder}\0"}, 400, "workingDir"),
            ({}, 400, "workingDir"),
            ({"workingDir": str(folder), "sandbox": "danger-full-access"}, 403, "allow-danger"),
            ({"workingDir": str(folder), "sandbox": "none"}, 400, "sandbox"),
            ({"workingDir": str(folder), "tools": ["rm"]}, 400, "tools[0]"),
            ({"workingDir": str(folder), "tools": ["exec", {"name": "exec"}]}, 400, "exec"),
            ({"workingDir": str(folder), "tools": []}, 400, "workingDir"),
        ):
            answer = await one.http.post("/api/v2/submit", json={**body, **fields})
            assert answer.status_code == status, (fields, answer.text)
            assert named in answer.json()["error"]["message"], fields


async def test_without_a_sandbox_where_the_server_allows_it(daring: SharedServer) -> None:
    async with (
        daring.wire("openai", calling("openai", "exec", command="echo out > ../outside; pwd"), after_call("openai")),
        daring.visited() as one,
    ):
        folder = repository(one)
        response = await one.answered(prompt="Go", tools=["exec"], workingDir=str(folder), sandbox="danger-full-access")
        assert outputs(response) == [(f"exit code 0\n{os.path.realpath(folder)}\n", True)]
        assert (one.folder / "outside").read_text() == "out\n"


async def test_a_read_only_sandbox_offers_no_patches_and_lets_nothing_be_written(shared_sqlite: SharedServer) -> None:
    async with (
        shared_sqlite.wire(
            "openai", calling("openai", "exec", command="echo x > notes.txt"), after_call("openai")
        ) as wire,
        shared_sqlite.visited() as one,
    ):
        folder = repository(one)
        tools = ["exec", "apply_patch"]
        response = await one.answered(prompt="Go", tools=tools, workingDir=str(folder), sandbox="read-only")
        [(said, success)] = outputs(response)
        assert not success
        assert "Read-only file system" in said
        assert (folder / "notes.txt").read_text() == "one\ntwo\nthree\n"
    assert [tool["name"] for tool in wire.requests[0].body["tools"]] == ["exec"]


async def started_command(one: Served, eventually: Wait, folder: Path) -> tuple[str, int]:
    """An answer whose model has begun a command without an end; the Response's id, and the command's pid."""
    told = await one.submit(prompt="Wait", tools=["exec"], workingDir=str(folder), sandbox="danger-full-access")
    noted = folder / "pid"
    await eventually(lambda: noted.exists() and noted.read_text().endswith("\n"), deadline_s=60)
    return told.run_id, int(noted.read_text())


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


ENDLESS = "trap '' TERM; echo $$ > pid; while :; do sleep 1; done"


async def test_an_abort_ends_the_command(daring: SharedServer, eventually: Wait) -> None:
    async with (
        daring.wire("openai", calling("openai", "exec", command=ENDLESS)) as wire,
        daring.visited() as one,
    ):
        response_id, pid = await started_command(one, eventually, repository(one))
        assert is_alive(pid)
        assert (await one.http.post(f"/api/v2/responses/{response_id}/abort")).status_code == 200
        await eventually(lambda: not is_alive(pid))
        response = await one.persisted(response_id)
    assert response.status == "aborted"
    assert kinds(response)[-1] == "function_call"
    assert len(wire.requests) == 1


async def test_a_server_that_is_killed_leaves_no_command(eventually: Wait) -> None:
    async with (
        WireServer(calling("openai", "exec", command=ENDLESS)) as wire,
        served(openai=wire, CODY_ALLOW_DANGER="1") as one,
    ):
        _, pid = await started_command(one, eventually, repository(one))
        one.server.end(signal.SIGKILL)
        await eventually(lambda: not is_alive(pid), deadline_s=60)
        await one.restart()


async def test_the_output_is_told_before_the_answer_goes_on(shared_sqlite: SharedServer, eventually: Wait) -> None:
    reply = after_call("openai").broken("silence", after=b"response.created")
    async with (
        shared_sqlite.wire("openai", calling("openai", "list_dir"), reply),
        shared_sqlite.visited() as one,
    ):
        told = await one.submit(prompt="Look", tools=["list_dir"], workingDir=str(repository(one)))
        async with asyncio.timeout(60):
            async with aclosing(events_of(one.http, told.run_id)) as events:
                async for _, event in events:
                    if isinstance(event.payload, ItemDone) and event.payload.final_item.type == "function_call_output":
                        break
        assert (await one.read(told.run_id)).status in {"queued", "in_progress"}
        await one.http.post(f"/api/v2/responses/{told.run_id}/abort")
        assert texts(await one.persisted(told.run_id)) == []
