"""Canaries in the server's environment and in a run's, looked for in everything that the server answers and writes."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx2

from tests.security.asking import ended_run, start_body
from tests.security.conftest import Launch
from tests.server.cody_server import REPOSITORY, clean_environment

OF_THE_RUN = "runCanary/7f3+Q=zz-0123456789"
OF_THE_HOST = "hostCanary_998877665544"
CONFIGURED = "the-configured-canary-value"
TOKEN = "the-token-canary-0123456789"
LEAK = """
import base64, json, os, pathlib, sys, urllib.parse
others = pathlib.Path("others.txt").read_text().split()
for secret in (os.environ["MY_API_KEY"], os.environ["OPENAI_API_KEY"], *others):
    print("plain", secret, flush=True)
    print(json.dumps({"__cody_event__": {"type": "note", "data": {"deep": json.dumps({"k": secret})}}}), flush=True)
    print(json.dumps({"__cody_event__": {"type": "file_written", "path": "dir/" + secret.replace("/", "_")}}), flush=True)
    print(base64.b64encode(b"user:" + secret.encode()).decode(), urllib.parse.quote(secret, safe=""), flush=True)
    print("x" * 100, secret, file=sys.stderr, flush=True)
    with open(os.environ["CODY_EPIC_DIR"] + "/codys-log.md", "a") as log: log.write("used " + secret + "\\n")
"""


def forms(secret: str) -> list[bytes]:
    raw = secret.encode()
    shifted = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    return [raw, json.dumps(secret)[1:-1].encode(), quote(secret, safe="").encode(), raw.hex().encode(), *shifted]


def test_no_answer_and_no_file_of_the_server_has_a_secret(launched: Launch, workspace: Path) -> None:
    server = launched(
        CODY_TOKEN=TOKEN,
        OPENAI_API_KEY=OF_THE_HOST,
        CODY_REDACT=CONFIGURED,
        CODY_LOG_LEVEL="debug",
    )
    (workspace / "others.txt").write_text(f"{CONFIGURED} {TOKEN}")
    body = start_body(workspace, LEAK, env={"MY_API_KEY": OF_THE_RUN})
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answers: dict[str, bytes] = {}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as client:
        run, stream = ended_run(client, body)
        answers["stream"] = stream
        asked = [run, f"{run}/status", f"{run}/turns", f"{run}/turns/1", f"{run}/turns/1/output", f"{run}/prompt"]
        asked += ["/api/runs", "/api/audit", "/api/tokens", "/metrics", "/readyz", "/openapi.json", "/healthz"]
        for path in asked:
            answer = client.get(path)
            assert answer.status_code == 200, path
            answers[path] = answer.content
        answers["preview"] = client.post("/api/runs/preview", json=body).content
        answers["refused"] = client.post("/api/runs/preview", json={**body, OF_THE_RUN: 1}).content
        answers["nothing"] = client.get(f"/{OF_THE_HOST}").content
        made = client.post("/api/tokens", json={"name": "shown-once", "scope": "read"}).json()["token"]
    assert server.end() == 0
    output = answers[f"{run}/turns/1/output"]
    assert b"plain [redacted:MY_API_KEY]" in output
    for secret_name in ("OPENAI_API_KEY", "CODY_REDACT", "CODY_TOKEN"):
        assert f"plain [redacted:{secret_name}]".encode() in output
    assert b"used [redacted:MY_API_KEY]" in answers[f"{run}/prompt"]
    files = {str(path): path.read_bytes() for path in server.state_dir.rglob("*") if path.is_file()}
    names = {Path(name).name for name in files}
    assert {"audit.jsonl", "tokens.json", "output.log", "prompt.md"} <= names
    # What a request itself says back is its sender's; those two are the sender's own words.
    told_back = {"refused", "nothing"}
    sinks = {**{k: v for k, v in answers.items() if k not in told_back}, **files, "stderr": server.log.read_bytes()}
    for name, content in sinks.items():
        for secret in (OF_THE_RUN, OF_THE_HOST, CONFIGURED, TOKEN, made):
            for form in forms(secret):
                assert form not in content, f"{form!r} in {name}"


def test_a_server_that_can_not_start_does_not_say_its_passwords(launched: Launch) -> None:
    server = launched(REDIS_URL="redis://user:redisCanary_12345@127.0.0.1:1/0")
    assert server.url == ""
    assert server.wait() == 1
    assert "127.0.0.1" in server.stderr
    assert "redisCanary_12345" not in server.stderr
    named = launched(CODY_REDACT="such-a-canary", CODY_REDIS_SERVER="/no/such-a-canary/valkey-server")
    assert named.url == ""
    assert named.wait() == 1
    assert "cody: " in named.stderr
    assert "/no/[redacted:CODY_REDACT]/valkey-server" in named.stderr
    assert "such-a-canary" not in named.stderr


def test_the_log_of_a_process_is_cleaned_line_by_line() -> None:
    """Also what libraries log, and tracebacks: whatever ends up in a line."""
    program = """
import logging
from structlog import get_logger
from cody.logs import configure_logs
from cody.redaction import Redactor, Secret
configure_logs("info", redactor=Redactor([Secret("X_KEY", "the\\"secret/value")]))
log = get_logger()
log.info("a.b", plain='the"secret/value', deep={"k": ['the"secret/value']}, raw=b'the"secret/value')
logging.getLogger("library").warning("with %s", 'the"secret/value')
try:
    raise ValueError('the"secret/value')
except ValueError:
    log.exception("it.failed")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "secret/value" not in done.stderr
    assert done.stderr.count("[redacted:X_KEY]") >= 5
    assert len([json.loads(line) for line in done.stderr.splitlines()]) == 3
