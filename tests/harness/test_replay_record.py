"""Recording through the proxy: the client notices nothing, the file plays the same again and holds no key."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cody.errors import ConfigurationError
from harness.replay.codex_home import write_codex_home
from harness.replay.demo_workspace import create_demo_workspace
from harness.replay.record import Recorder
from harness.replay.scenario import Scenario
from harness.replay.scenario_file import load_scenario, parse_scenario
from harness.replay.server import ReplayServer
from tests.harness.replay_codex import CodexTurn, run_codex

_KEY = "sk-secret-key-of-the-client"
_HEADERS = {"authorization": f"Bearer {_KEY}"}


def _scenario(*answers: dict[str, Any]) -> Scenario:
    turns = [{"responses": [answer]} for answer in answers]
    return parse_scenario(json.dumps({"name": "upstream", "turns": turns}), origin="test")


def _client(server: ReplayServer | Recorder) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.base_url, headers=_HEADERS, timeout=60)


def _message(text: str) -> dict[str, Any]:
    return {"type": "message", "text": text}


def _essence(turn: CodexTurn) -> list[Mapping[str, Any]]:
    """The lines of a turn without what differs from run to run: thread, folder, and what commands print."""
    lines: list[Mapping[str, Any]] = []
    for line in turn.lines:
        item = {key: value for key, value in line.get("item", {}).items() if key != "aggregated_output"}
        if "changes" in item:
            item["changes"] = [(Path(change["path"]).name, change["kind"]) for change in item["changes"]]
        lines.append(
            {key: value for key, value in line.items() if key != "thread_id"} | ({"item": item} if item else {})
        )
    return lines


async def _demo_turns(folder: Path, base_url: str) -> Sequence[CodexTurn]:
    folder.mkdir()
    workspace = folder / "workspace"
    create_demo_workspace(workspace)
    env = write_codex_home(folder / "home", base_url)
    return [await run_codex(workspace, env) for _ in range(3)]


async def test_codex_does_the_same_again_when_its_recording_is_played(tmp_path: Path) -> None:
    out = tmp_path / "recorded.yaml"
    async with ReplayServer("demo", delay_factor=0) as upstream, Recorder(upstream.base_url, out) as recorder:
        recorded = await _demo_turns(tmp_path / "recorded", recorder.base_url)
    async with ReplayServer(out, delay_factor=0) as server:
        played = await _demo_turns(tmp_path / "played", server.base_url)

    assert [turn.code for turn in [*recorded, *played]] == [0] * 6
    assert [_essence(turn) for turn in played] == [_essence(turn) for turn in recorded]
    original, copy = load_scenario("demo"), load_scenario(out)
    assert [[answer.items for answer in turn.responses] for turn in copy.turns] == [
        [answer.items for answer in turn.responses] for turn in original.turns
    ]
    assert [[answer.usage for answer in turn.responses] for turn in copy.turns] == [
        [answer.usage for answer in turn.responses] for turn in original.turns
    ]


async def test_ways_to_go_wrong_are_recorded_as_such(tmp_path: Path) -> None:
    original = _scenario(
        {"error": {"status": 429, "message": "slow", "headers": {"retry-after": "7", "x-request-id": "r"}}},
        {"items": [_message("half"), _message("never")], "drop": 1},
        {"items": [_message("long")], "incomplete": "max_output_tokens", "usage": {"input": 1, "output": 9}},
        {"failed": {"code": "server_error", "message": "boom"}},
    )
    out = tmp_path / "wrong.yaml"
    async with (
        ReplayServer(original) as upstream,
        Recorder(upstream.base_url, out) as recorder,
        _client(recorder) as client,
    ):
        limited = await client.post("/responses", json={"input": "a", "stream": True})
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post("/responses", json={"input": "b", "stream": True})
        await client.post("/responses", json={"input": "c", "stream": True})
        await client.post("/responses", json={"input": "d", "stream": True})

    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
    error, cut, incomplete, failed = (turn.responses[0] for turn in load_scenario(out).turns)
    assert error.error is not None
    assert (error.error.status, error.error.headers) == (429, {"retry-after": "7"})
    assert error.error.body == limited.json()
    assert (cut.drop, [item.model_dump()["text"] for item in cut.items]) == (1, ["half"])
    assert (incomplete.incomplete, incomplete.usage) == ("max_output_tokens", original.turns[2].responses[0].usage)
    assert failed.failed == original.turns[3].responses[0].failed


async def test_the_key_goes_upstream_and_nowhere_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    original = _scenario(
        {"error": {"status": 401, "message": f"Incorrect API key provided: {_KEY}."}},
        {"items": [_message(f"Your key is {_KEY}, is it not?")]},
    )
    out = tmp_path / "key.yaml"
    async with (
        ReplayServer(original) as upstream,
        Recorder(upstream.base_url, out) as recorder,
        _client(recorder) as client,
    ):
        refused = await client.post("/responses", json={"input": "a", "stream": True})
        await client.post("/responses", json={"input": "b", "stream": True})
        with_key = {request.session for request in upstream.requests}
        async with _client(upstream) as client:
            await client.post("/responses", json={"input": "c"})
        direct = {request.session for request in upstream.requests}

    assert with_key == direct, "the upstream saw the key that the client gave"
    assert _KEY in refused.text, "the client sees what the upstream said"
    text = out.read_text(encoding="utf-8")
    assert _KEY not in text
    assert "Incorrect API key provided: [redacted]." in text
    assert "Your key is [redacted], is it not?" in text
    assert out.stat().st_mode & 0o777 == 0o600
    captured = capfd.readouterr()
    assert _KEY not in captured.out + captured.err


async def test_an_answer_without_a_stream_is_recorded_too(tmp_path: Path) -> None:
    out = tmp_path / "Whole Answer.yaml"
    original = _scenario({"items": [_message("whole")], "usage": {"input": 4, "output": 1}})
    async with (
        ReplayServer(original) as upstream,
        Recorder(upstream.base_url, out) as recorder,
        _client(recorder) as client,
    ):
        answer = await client.post("/responses", json={"input": "a", "model": "gpt-5.5"})
        models = await client.get("/models")

    assert answer.json()["output"][0]["content"][0]["text"] == "whole"
    assert models.json()["object"] == "list"
    copy = load_scenario(out)
    assert copy.name == "whole_answer"
    assert copy.turns[0].responses[0].items == original.turns[0].responses[0].items
    assert copy.turns[0].responses[0].usage == original.turns[0].responses[0].usage


async def test_an_upstream_that_is_away_is_said_and_not_recorded(tmp_path: Path) -> None:
    out = tmp_path / "nothing.yaml"
    with socket.socket() as taken:
        # Bound, so that it is nobody else's, and not listened on.
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with Recorder(address, out) as recorder, _client(recorder) as client:
            answer = await client.post("/responses", json={"input": "a", "stream": True})
            page = await client.post("/responses", json={"input": "a"}, headers={"origin": "https://example.org"})

    assert answer.status_code == 502
    assert f"{address} does not answer" in answer.json()["error"]["message"]
    assert page.status_code == 403
    assert not out.exists()


@pytest.mark.parametrize(
    "upstream", ["ftp://example.org/v1", "https://user:pass@example.org/v1", "nowhere", "http:///v1"]
)
def test_an_upstream_that_is_no_plain_address_is_refused(tmp_path: Path, upstream: str) -> None:
    with pytest.raises(ConfigurationError, match="the upstream must be"):
        Recorder(upstream, tmp_path / "out.yaml")


def test_a_recording_never_replaces_a_file(tmp_path: Path) -> None:
    out = tmp_path / "there.yaml"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="exists"):
        Recorder("https://example.org/v1", out)
    assert out.read_text(encoding="utf-8") == "mine"
