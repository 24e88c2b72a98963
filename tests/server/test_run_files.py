"""What is kept of a run in files, over HTTP: the prompt of each turn, and the two logs of its epic; and how all of it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cody.redaction import Redactor, Secret
from harness.epic_log import MAX_TEXT_BYTES, shown
from tests.server.conftest import Launch

Eventually = Callable[..., Awaitable[None]]
SECRET = "hunter2-hunter2-hunter2"
LOGGING = """
import os, pathlib
log = pathlib.Path(os.environ["CODY_EPIC_DIR"]) / "codys-log.md"
log.write_text(log.read_text() + f"turn {os.environ['CODY_TURN']} with " + os.environ["SHOP_TOKEN"] + "\\n")
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    epic = tmp_path / ".cody-harness" / "current-epic"
    epic.mkdir(parents=True)
    (epic / "codys-log.md").write_text("# Log\n", encoding="utf-8")
    (epic / "guide.md").write_text(f"The token is {SECRET}.\n", encoding="utf-8")
    (epic.parent / "decision-log.md").write_text("# Decisions\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
async def run(client: httpx2.Client, workspace: Path, eventually: Eventually) -> str:
    """The path of a run that has made two turns, each with a line in the log."""
    config = {
        "workingDir": str(workspace),
        "agent": "command",
        "command": [sys.executable, "-c", LOGGING],
        "loopDelaySec": 0,
        "maxTurns": 2,
        "env": {"SHOP_TOKEN": SECRET},
    }
    answer = client.post("/api/runs/continuous", json={"epicId": "current-epic", "config": config}).raise_for_status()
    path = f"/api/runs/{answer.json()['runId']}"
    await eventually(lambda: client.get(path).json()["status"] == "completed", "the run has ended")
    return path


async def test_each_turn_has_the_prompt_that_it_got(client: httpx2.Client, run: str) -> None:
    first, second = (client.get(f"{run}/turns/{number}/prompt").raise_for_status() for number in (1, 2))
    assert first.headers["content-type"] == "text/plain; charset=utf-8"
    assert "=== CURRENT STATE (READ THIS FIRST) ===" in first.text
    assert "turn 1 with" not in first.text
    assert "turn 1 with [redacted:SHOP_TOKEN]" in second.text
    assert SECRET not in first.text + second.text
    size = len(second.content)
    assert client.get(f"{run}/turns/2/prompt?offset={size - 5}").content == second.content[-5:]
    part = client.get(f"{run}/turns/2/prompt", headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, second.content[2:6])
    assert part.headers["content-range"] == f"bytes 2-5/{size}"
    assert client.get(f"{run}/turns/2/prompt?offset={size + 1}").status_code == 416


async def test_prompts_that_there_are_not_are_not_found(client: httpx2.Client, run: str, tmp_path: Path) -> None:
    nobody = "/api/runs/6f2c1a52-7c62-4bde-9b53-25a1a6b1c111"
    for path in (f"{run}/turns/3/prompt", f"{run}/turns/0/prompt", f"{run}/turns/x/prompt", f"{nobody}/turns/1/prompt"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path


async def test_a_prompt_that_was_replaced_by_a_link_is_not_given(
    client: httpx2.Client, server: Any, run: str, tmp_path: Path
) -> None:
    kept = min((server.state_dir / "runs" / run.rsplit("/", 1)[1]).rglob("prompt.md"))
    kept.unlink()
    assert "not on this host" in client.get(f"{run}/turns/1/prompt").json()["error"]["message"]
    (tmp_path / "elsewhere").write_text("secret", encoding="utf-8")
    kept.symlink_to(tmp_path / "elsewhere")
    answer = client.get(f"{run}/turns/1/prompt")
    assert (answer.status_code, "secret" in answer.text) == (404, False)


async def test_the_logs_are_served_whole_and_as_they_grow(client: httpx2.Client, run: str, workspace: Path) -> None:
    path = workspace / ".cody-harness" / "current-epic" / "codys-log.md"
    answer = client.get(f"{run}/logs/codys-log.md").raise_for_status().json()
    text = "# Log\nturn 1 with [redacted:SHOP_TOKEN]\nturn 2 with [redacted:SHOP_TOKEN]\n"
    assert (answer["text"], answer["omittedBytes"], answer["path"]) == (text, 0, str(path))
    assert answer["size"] == path.stat().st_size
    path.write_text(path.read_text(encoding="utf-8") + "by hand\n", encoding="utf-8")
    assert client.get(f"{run}/logs/codys-log.md").json()["text"] == text + "by hand\n"
    assert client.get(f"{run}/logs/decision-log.md").json()["text"] == "# Decisions\n"


@pytest.mark.parametrize("name", ["guide.md", "prompt.md", "..%2fdecision-log.md", "%2e%2e", "codys-log.md%00", "x"])
async def test_only_the_two_logs_are_served(client: httpx2.Client, run: str, name: str) -> None:
    answer = client.get(f"{run}/logs/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_log_that_leads_elsewhere_is_not_read(client: httpx2.Client, run: str, workspace: Path) -> None:
    epic = workspace / ".cody-harness" / "current-epic"
    (workspace / "passwords").write_text("secret", encoding="utf-8")
    log = epic / "codys-log.md"
    log.unlink()
    assert "does not exist yet" in client.get(f"{run}/logs/codys-log.md").json()["error"]["message"]
    log.symlink_to(workspace / "passwords")
    answer = client.get(f"{run}/logs/codys-log.md")
    assert (answer.status_code, "symbolic link" in answer.json()["error"]["message"]) == (404, True)
    log.unlink()
    os.mkfifo(log)
    assert client.get(f"{run}/logs/codys-log.md").status_code == 404
    log.unlink()
    epic.rename(workspace / "moved")
    epic.symlink_to(workspace / "moved")
    answer = client.get(f"{run}/logs/codys-log.md")
    assert (answer.status_code, "leads out of" in answer.json()["error"]["message"]) == (404, True)


async def test_a_log_of_gigabytes_is_shown_from_its_end(client: httpx2.Client, run: str, workspace: Path) -> None:
    path = workspace / ".cody-harness" / "current-epic" / "codys-log.md"
    with path.open("r+b") as file:
        file.truncate(2 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"0123456789\n" * 200_000 + b"the end\n")
    answer = client.get(f"{run}/logs/codys-log.md").json()
    assert answer["text"].startswith("0123456789\n")
    assert answer["text"].endswith("the end\n")
    assert MAX_TEXT_BYTES - 11 <= len(answer["text"]) <= MAX_TEXT_BYTES
    assert answer["omittedBytes"] + len(answer["text"]) == answer["size"] == path.stat().st_size


def test_a_secret_that_the_cut_goes_through_is_not_shown_in_part() -> None:
    redactor = Redactor([Secret("SHOP_TOKEN", SECRET)])
    data = b"x" * 50 + SECRET.encode() + b"\nlast\n"
    for most in range(5, 60):
        text, omitted = shown(data, 0, redactor, most)
        assert not [size for size in range(6, len(SECRET)) if SECRET[-size:] in text], (most, text)
        assert omitted >= 0
    assert shown(b"short\n", 0, redactor, 60) == ("short\n", 0)


async def test_health_tells_of_redis_and_of_the_archive(
    client: httpx2.Client, run: str, eventually: Eventually
) -> None:
    def health() -> dict[str, Any]:
        return dict(client.get("/api/health").raise_for_status().json())

    found: dict[str, Any] = {}

    def is_archived() -> bool:
        found.update(health())
        archive = found["archive"]
        return bool(archive["ok"] and archive["runs"] == archive["responses"] == {"waiting": 0, "oldestMs": 0})

    await eventually(is_archived, "the run and its Responses are archived")
    assert found["redis"]["state"].startswith("ok (valkey ")
    assert "power loss may cost about the last second" in found["redis"]["persistence"]
    archive = found["archive"]
    assert (archive["ok"], archive["projects"], archive["halted"]) == (True, True, [])
    assert "archive.sqlite3" in archive["state"]
    await eventually(lambda: client.get("/readyz").json()["checks"]["sql"] == archive["state"])


async def test_an_archive_that_is_away_is_told_of_and_stops_no_run(
    launched: Launch, workspace: Path, eventually: Eventually
) -> None:
    server = launched(DATABASE_URL="postgresql://cody:hidden@127.0.0.1:9/none")
    with server.client() as client:
        config = {"workingDir": str(workspace), "agent": "command", "command": ["true"], "maxTurns": 1}
        body = {"epicId": "current-epic", "config": config}
        run_id = client.post("/api/runs/continuous", json=body).raise_for_status().json()["runId"]
        await eventually(lambda: client.get(f"/api/runs/{run_id}").json()["status"] == "completed", "the run has ended")
        found: dict[str, Any] = {}

        def is_known() -> bool:
            """Health waits some seconds only: for the database's refusal, and for how far the archive is behind."""
            found.update(client.get("/api/health").raise_for_status().json()["archive"])
            assert "hidden" not in found["state"]
            return "can't open the archive" in found["state"] and found["runs"] is not None

        await eventually(is_known, "why there is no archive")
        assert found["ok"] is False
        assert found["runs"]["waiting"] > 0
        ready = client.get("/readyz").raise_for_status().json()
        assert ready["ready"] is True
        assert [one for one in ready["degraded"] if "catches up when it can" in one]


async def test_a_process_that_leaves_the_archive_to_another_says_so(
    launched: Launch, workspace: Path, eventually: Eventually
) -> None:
    server = launched(CODY_PROJECTOR="off")
    with server.client() as client:
        config = {"workingDir": str(workspace), "agent": "command", "command": ["true"], "maxTurns": 1}
        client.post("/api/runs/continuous", json={"epicId": "current-epic", "config": config}).raise_for_status()

        def waits() -> bool:
            found = client.get("/api/health").json()["archive"]
            behind = found["runs"] or {"waiting": 0, "oldestMs": 0}  # null: not known in time
            return found["projects"] is False and behind["waiting"] > 0 and behind["oldestMs"] > 0

        await eventually(waits, "the run waits for the archive")
