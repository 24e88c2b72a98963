"""A fuzzer that knows the API's description sends what it allows and what it forbids, to a real server process.

schemathesis judges each answer by all its checks: no fault of the server's, a status and a body that are described, what
is valid taken and what is not refused, a token needed where one is asked for, what was made found and what was removed not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.security.asking import ended_run, start_body
from tests.security.conftest import Launch
from tests.server.cody_server import CodyServer, clean_environment

TOKEN = "a-token-that-no-call-can-rotate"
DEADLINE_S = 200
SIZE = 1_000
"""Of the turn's output, in bytes."""
READING = ("getRun", "getRunStatus", "streamRun", "listTurns", "getTurn", "getTurnOutput", "getNextPrompt")
CONFIG = """
[checks]
# 413 and 416 are refusals like the others: a list of 1,001 long strings is too much either way.
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 416]
"""


def client_of(server: CodyServer) -> httpx2.Client:
    return httpx2.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)


def described(server: CodyServer, folder: Path, narrow: Callable[[dict[str, Any]], None]) -> Path:
    """The server's description, with values in place of what no schema can know: folders, cursors, ids."""
    with client_of(server) as client:
        found = client.get("/openapi.json").json()
    narrow(found)
    path = folder / "openapi.json"
    path.write_text(json.dumps(found))
    return path


def parameter(found: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    places = [
        one
        for methods in found["paths"].values()
        for operation in methods.values()
        for one in operation["parameters"]
        if one["name"] == name
    ]
    assert places, name
    for one in places:
        one["schema"] = schema


def fuzzed(server: CodyServer, description: Path, *options: str) -> str:
    """What schemathesis said; fails when it found anything."""
    config = description.with_name("schemathesis.toml")
    config.write_text(CONFIG)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
            *("run", str(description), "--url", server.url, "--checks", "all", "--no-color"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--request-timeout", "20", "--continue-on-failure"),
            # A busy machine makes the values no worse.
            *("--generation-database", "none", "--seed", "1", "--suppress-health-check", "too_slow", *options),
        ],
        cwd=description.parent,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    said = "\n".join(line[:1_000] for line in (done.stdout + done.stderr).splitlines())
    assert done.returncode == 0, said
    assert "Traceback" not in server.stderr
    assert '"request.failed"' not in server.stderr
    assert "Authentication failed" not in said
    return said


def answers(server: CodyServer, route: str, status: int) -> int:
    with client_of(server) as client:
        text = client.get("/metrics").text
    found = re.findall(rf'route="{re.escape(route)}",status="{status}"}} (\d+)', text)
    return sum(int(one) for one in found)


@pytest.mark.timeout(DEADLINE_S)
def test_the_api_keeps_to_its_description(launched: Launch, workspace: Path, folder: Path) -> None:
    """All but the stream, which for a run that only waits would never end. Nothing works on the runs: they stay queued."""
    # A model that is asked, too; nobody answers there.
    provider = {"OPENAI_API_KEY": "of-nobody-at-all", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    server = launched(CODY_TOKEN=TOKEN, CODY_CONCURRENCY="0", **provider)
    with client_of(server) as client:
        for _ in range(2):
            assert client.post("/api/runs/continuous", json=start_body(workspace)).status_code == 202
        cursor = client.get("/api/runs?limit=1").json()["nextCursor"]

    def narrow(found: dict[str, Any]) -> None:
        config = found["components"]["schemas"]["RunConfig"]["properties"]
        config["workingDir"] = {"enum": [str(workspace)]}
        config["harnessDir"] = {"enum": [".cody-harness"]}
        found["components"]["schemas"]["SubmitRequest"]["properties"]["providerId"] = {"enum": ["openai"]}
        parameter(found, "cursor", {"enum": [cursor]})
        for path in ("/api/search", "/api/v2/threads"):
            # Their cursors are others, and there is nothing to go on in.
            listing = found["paths"][path]["get"]
            listing["parameters"] = [one for one in listing["parameters"] if one["name"] != "cursor"]

    description = described(server, folder, narrow)
    shared = ("--exclude-path-regex", "/stream$")
    fuzzed(server, description, *shared, "--phases", "coverage,fuzzing", "--max-examples", "3")
    said = fuzzed(server, description, *shared, "--phases", "stateful", "--max-examples", "30")
    covered = re.search(r"API Links: +(\d+) covered", said)
    assert covered is not None
    assert int(covered[1]) >= 3
    for route, status in (
        ("/api/runs/continuous", 202),
        ("/api/runs/continuous", 400),
        ("/api/runs/{run_id:uuid}", 200),
        ("/api/runs/{run_id:uuid}/cancel", 200),
        ("/api/tokens", 201),
        ("/api/tokens/{name}", 204),
        ("/api/tokens/{name}/rotate", 200),
    ):
        assert answers(server, route, status), f"{route} never answered {status}"


@pytest.mark.timeout(DEADLINE_S)
def test_what_is_read_of_a_run_keeps_to_the_description(launched: Launch, workspace: Path, folder: Path) -> None:
    server = launched(CODY_TOKEN=TOKEN)
    with client_of(server) as client:
        path, _ = ended_run(client, start_body(workspace, f"print('x' * {SIZE - 1})"))

    def narrow(found: dict[str, Any]) -> None:
        parameter(found, "runId", {"enum": [path.rsplit("/", 1)[1]]})
        parameter(found, "number", {"enum": [1]})
        parameter(found, "offset", {"type": "integer", "minimum": 0, "maximum": SIZE})

    description = described(server, folder, narrow)
    only = [word for one in READING for word in ("--include-operation-id", one)]
    fuzzed(server, description, *only, "--phases", "coverage,fuzzing", "--max-examples", "8")
    for route in ("", "/status", "/stream", "/turns", "/turns/{number}", "/turns/{number}/output", "/prompt"):
        assert answers(server, f"/api/runs/{{run_id:uuid}}{route}", 200), route
