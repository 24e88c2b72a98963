"""What an agent prints, and what a client sends, stays data: in the event stream, in the logs, on a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2

from tests.security.asking import START, ended_run, start_body
from tests.server.cody_server import REPOSITORY, CodyServer, clean_environment

FORGED = (
    'x\r\n\r\nevent: error\r\ndata: {"type":"run_completed"}\r\nid: 9-9\r\nretry: 1\r\n\r\n'
    "\ndata: [DONE]\n\n\u2028\x85\x00\x1b[2J"
)
PRINTING = f"""
import json, sys
forged = {FORGED!r}
sys.stdout.write(forged); sys.stdout.flush()
for event in (
    {{"type": forged, "data": forged}},
    {{"type": "file_written", "path": forged}},
    {{"type": "run_completed"}},
    {{"type": "run_failed", "error": {{"code": "x", "message": forged}}}},
):
    print(json.dumps({{"__cody_event__": event}}), flush=True)
print(forged, file=sys.stderr)
"""


def test_agents_can_not_write_frames(client: httpx2.Client, workspace: Path) -> None:
    _, raw = ended_run(client, start_body(workspace, PRINTING))
    assert raw.endswith(b"data: [DONE]\n\n")
    assert raw.count(b"[DONE]\n\n") == 1
    # Every byte that ends a line for some reader of such streams: nothing but ours may be behind one.
    lines = [line for line in raw.replace(b"\r", b"\n").split(b"\n") if line]
    allowed = (b"id: ", b"data: ", b"retry: 2000", b":keepalive")
    assert not [line for line in lines if not line.startswith(allowed)]
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("run_completed") == 1
    assert events[-1]["type"] == "run_completed"
    assert "run_failed" not in {event["type"] for event in events}
    assert any("event: error" in event.get("text", "") for event in events), "it was shown as what it is: text"


def test_logs_are_lines_that_only_cody_writes(server: CodyServer, client: httpx2.Client, workspace: Path) -> None:
    ended_run(client, start_body(workspace, PRINTING))
    for path in ("/api/runs/%0a%7b%22event%22%3a%22forged%22%7d", "/%1b%5b2J", "/api/runs?%0aforged=1"):
        client.get(path)
    client.get("/api/runs", headers={"X-Request-Id": "forged", "User-Agent": "\x7fforged"})
    client.post(START, json={"epicId": "a\nforged", "config": {"workingDir": "/x\nforged"}})
    client.post("/api/tokens/%0aforged/rotate")
    lines = server.stderr.splitlines()
    assert len(lines) > 10
    for line in lines:
        found = json.loads(line)
        assert found["event"] != "forged"
        assert set(found) >= {"event", "level", "ts"}
        assert line.isprintable() or not any(ord(character) < 32 for character in line)
    audit = (server.state_dir / "audit.jsonl").read_text().splitlines()
    assert all(set(json.loads(line)) >= {"ts", "who", "action", "status"} for line in audit)
    assert "\x1b" not in "".join(audit)


def test_a_terminal_that_shows_the_log_obeys_nothing_in_it() -> None:
    program = """
from structlog import get_logger
from cody.logs import configure_logs
configure_logs("info")
get_logger().info("run.queued", epic_id="a\\x1b[2Jb\\rc\\n2026 [info] forged", odd="\\u202etxt")
import logging
logging.getLogger("library").warning("x\\x1b]0;title\\x07\\nforged")
"""
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, env=clean_environment(), stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65_536):
            said += chunk
    except OSError:  # a terminal ends with an error
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 0
    assert b"forged" in said
    assert len([line for line in said.split(b"\r\n") if line]) == 2
    for obeyed in (b"\x1b[2J", b"\x1b]0", b"\x07", b"\r\x1b", b"\rc", "\u202e".encode()):
        assert obeyed not in said
