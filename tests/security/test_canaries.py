"""Canaries in the server's environment and in a run's, looked for in everything that the server answers and writes."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import httpx2
import psutil
import pytest

from tests.security.asking import START, ended_run, start_body, stream_of
from tests.security.conftest import Launch
from tests.server.cody_server import REPOSITORY, CodyServer, clean_environment

Eventually = Callable[..., Awaitable[None]]

OF_THE_RUN = "runCanary/7f3+Q=zz-0123456789"
LONG = "sk-proj-" + "".join(f"canary{n * n * 7919 % 100_003:05}" for n in range(14))
IN_A_FILE = "tomlCanary_13579!(x)"
IN_A_URL = "urlCanary_2468024680"
OF_THE_HOST = "hostCanary_998877665544"
CONFIGURED = "the-configured-canary-value"
TOKEN = "the-token-canary-0123456789"
LEAK = """
import base64, json, os, pathlib, sys, urllib.parse
others = pathlib.Path("others.txt").read_text().split()
url = os.environ["DATABASE_URL"]
own = [os.environ[name] for name in ("MY_API_KEY", "PGPASSWORD", "OPENAI_API_KEY")]
for secret in (*own, url.split(":")[2].split("@")[0], *others):
    print("plain", secret, flush=True)
    print(json.dumps({"__cody_event__": {"type": "note", "data": {"deep": json.dumps({"k": secret})}}}), flush=True)
    print(json.dumps({"__cody_event__": {"type": "file_written", "path": "dir/" + secret.replace("/", "_")}}), flush=True)
    print(base64.b64encode(b"user:" + secret.encode()).decode(), urllib.parse.quote(secret, safe=""), flush=True)
    print("x" * 100, secret, file=sys.stderr, flush=True)
    in_lines = base64.encodebytes(secret.encode()).decode()
    print(in_lines, urllib.parse.quote(secret, safe="!'()*"), secret.replace("/", chr(92) + "/"), flush=True)
    print(json.dumps({"__cody_event__": {"type": "note", "data": {"lines": in_lines}}}), flush=True)
    hexadecimal = secret.encode().hex()
    for at in range(0, len(hexadecimal), 60): print(hexadecimal[at:at + 60], flush=True)
    with open(os.environ["CODY_EPIC_DIR"] + "/codys-log.md", "a") as log: log.write("used " + secret + "\\n")
"""


def forms(secret: str) -> list[bytes]:
    raw = secret.encode()
    shifted = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    quoted = [quote(secret, safe="").encode(), quote(secret, safe="!'()*").encode()]
    written = [json.dumps(secret)[1:-1].encode(), secret.replace("/", "\\/").encode()]
    in_lines = base64.encodebytes(raw).split() if len(raw) > 57 else []
    in_lines += [raw.hex()[at : at + 60].encode() for at in range(0, 2 * len(raw) - 8, 60)]
    return [raw, *written, *quoted, raw.hex().encode(), *shifted, *in_lines]


def assert_clean(sinks: Mapping[str, bytes], *secrets: str) -> None:
    for name, content in sinks.items():
        for secret in secrets:
            for form in forms(secret):
                assert form not in content, f"{form!r} in {name}"


def files_of(server: CodyServer) -> dict[str, bytes]:
    """All that is in the state folder now."""
    found = {}
    for path in server.state_dir.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # Redis and SQLite replace theirs as they like
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(server.state_dir))] = path.read_bytes()
    return found


async def test_no_answer_and_no_file_of_the_server_has_a_secret(
    launched: Launch, folder: Path, workspace: Path, eventually: Eventually
) -> None:
    folder.joinpath("state").mkdir(mode=0o700)
    folder.joinpath("state", "cody.toml").write_text(f'openai_base_url = "https://user:{IN_A_FILE}@127.0.0.1:9/v1"\n')
    server = launched(
        CODY_TOKEN=TOKEN,
        OPENAI_API_KEY=OF_THE_HOST,
        CODY_REDACT=CONFIGURED,
        CODY_LOG_LEVEL="debug",
    )
    (workspace / "others.txt").write_text(f"{CONFIGURED} {TOKEN} {IN_A_FILE}")
    url = f"postgresql://app:{IN_A_URL}@db.example/app"
    env = {"MY_API_KEY": OF_THE_RUN, "PGPASSWORD": LONG, "DATABASE_URL": url, "PLAIN": "shown-as-it-is"}
    body = start_body(workspace, LEAK, env=env)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answers: dict[str, bytes] = {}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as client:
        run, stream = ended_run(client, body)
        answers["stream"] = stream
        asked = [run, f"{run}/status", f"{run}/turns", f"{run}/turns/1", f"{run}/turns/1/output", f"{run}/prompt"]
        asked += [f"{run}/turns/1/prompt", f"{run}/logs/codys-log.md"]
        asked += ["/api/runs", "/api/audit", "/api/tokens", "/metrics", "/readyz", "/openapi.json", "/healthz"]
        response_id = client.get(f"{run}/turns/1").json()["responseId"]
        asked += [f"/api/v2/responses/{response_id}", f"/api/v2/stream/{response_id}", "/api/v2/threads"]
        search = f"/api/search?q={quote('plain')}"
        await eventually(lambda: client.get(search).json()["hits"], "the archive has the run")
        answer_of_turn = f"/api/v2/responses/{response_id}"
        await eventually(lambda: client.get(answer_of_turn).json().get("status") == "complete", "and the turn's answer")
        asked.append(search)
        for path in asked:
            answer = client.get(path)
            assert answer.status_code == 200, path
            answers[path] = answer.content
        answers["preview"] = client.post("/api/runs/preview", json=body).content
        answers["refused"] = client.post("/api/runs/preview", json={**body, OF_THE_RUN: 1}).content
        answers["nothing"] = client.get(f"/{OF_THE_HOST}").content
        made = client.post("/api/tokens", json={"name": "shown-once", "scope": "read"}).json()["token"]
        shown = client.get(run).json()["config"]["env"]
    while_it_runs = {f"{name} (in use)": content for name, content in files_of(server).items()}
    assert server.end() == 0
    assert shown == {
        "MY_API_KEY": "[redacted:MY_API_KEY]",
        "PGPASSWORD": "[redacted:PGPASSWORD]",
        "DATABASE_URL": "[redacted:DATABASE_URL]",
        "PLAIN": "shown-as-it-is",
    }
    output = answers[f"{run}/turns/1/output"]
    assert b"plain [redacted:MY_API_KEY]" in output
    for secret_name in ("OPENAI_API_KEY", "CODY_REDACT", "CODY_TOKEN", "DATABASE_URL", "OPENAI_BASE_URL", "PGPASSWORD"):
        assert f"plain [redacted:{secret_name}]".encode() in output
    assert b"used [redacted:MY_API_KEY]" in answers[f"{run}/prompt"]
    files = {**while_it_runs, **files_of(server)}
    del files["cody.toml"], files["cody.toml (in use)"]  # the person's own
    names = " ".join(files)
    for looked_at in (
        "audit.jsonl",
        "output.log",
        "prompt.md",
        "archive.sqlite3 (in use)",
        "archive.sqlite3-wal",
        "appendonly",
    ):
        assert looked_at in names
    # What a request itself says back is its sender's; those two are the sender's own words.
    told_back = {"refused", "nothing"}
    sinks = {**{k: v for k, v in answers.items() if k not in told_back}, **files, "stderr": server.log.read_bytes()}
    assert_clean(sinks, OF_THE_RUN, LONG, OF_THE_HOST, CONFIGURED, TOKEN, IN_A_URL, IN_A_FILE, made)


SPOOLED = """
import json, os, pathlib, time
print("waiting", flush=True)
while not pathlib.Path("go").exists(): time.sleep(0.01)
for number in range(1500):
    data = {"k": os.environ["MY_API_KEY"], "filler": "x" * 8000}
    print(json.dumps({"__cody_event__": {"type": "note", "data": data}}), flush=True)
"""


async def test_what_waits_on_disk_while_redis_is_away_has_no_secret(
    launched: Launch, workspace: Path, eventually: Eventually
) -> None:
    server = launched()
    (valkey,) = [one for one in psutil.Process(server.process.pid).children() if "valkey" in one.name()]
    with server.client() as client:
        body = start_body(workspace, SPOOLED, env={"MY_API_KEY": OF_THE_RUN})
        run = client.post(START, json=body).headers["location"]
        output = server.state_dir / "runs" / run.rsplit("/", 1)[1]
        await eventually(lambda: any(b"waiting" in path.read_bytes() for path in output.rglob("output.log")))
        valkey.suspend()
        try:
            (workspace / "go").touch()
            await eventually(lambda: any(path.stat().st_size > 1 << 20 for path in output.glob("spool-*")))
            spooled = {path.name: path.read_bytes() for path in output.glob("spool-*")}
        finally:
            valkey.resume()
        assert stream_of(client, run).endswith(b"data: [DONE]\n\n")
    assert b"[redacted:MY_API_KEY]" in b"".join(spooled.values())
    assert_clean(spooled, OF_THE_RUN)


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


@pytest.mark.parametrize(
    ("module", "environment"),
    [
        ("harness.host", {"REDIS_URL": "redis://user:urlCanary_2468024680@127.0.0.1:1/0"}),
        (
            "cody.pipeline.projector",
            {
                "REDIS_URL": "redis://127.0.0.1:1",
                "DATABASE_URL": "postgresql://user:urlCanary_2468024680@127.0.0.1:1/app",
            },
        ),
    ],
)
def test_other_processes_do_not_say_passwords_either(tmp_path: Path, module: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--state-dir", str(tmp_path)],
        cwd=REPOSITORY,
        env=clean_environment(CODY_REDACT="127.0.0.1", **environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert IN_A_URL not in said
    assert "127.0.0.1" not in said, "what was configured to be kept out is kept out of the last word, too"
    assert "[redacted:CODY_REDACT]" in said


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
