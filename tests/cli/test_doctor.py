"""The doctor finds what is there, says what mends the rest, and shows no secret."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from cody.settings import load_settings
from harness import findings
from harness.probe import run_probe
from tests.cli.command_line import CommandLine
from tests.ports import reserved_port

SECRET = "sk-never-to-be-shown"


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "codex-home"
    made.mkdir()
    return made


def test_all_is_well(alone: CommandLine, home: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=alone.folder, check=True)
    found = checks(alone("doctor", "--json", CODEX_API_KEY=SECRET, CODEX_HOME=str(home)))
    assert {name: check["state"] for name, check in found.items()} == dict.fromkeys(
        ("codex", "sandbox", "control group", "credentials", "redis", "server", "state folder", "disk", "git", "epic"),
        "ok",
    )
    assert found["codex"]["found"].startswith("codex-cli ")
    assert "valkey" in found["redis"]["found"]
    assert not alone.state_dir.exists(), "the doctor changes nothing"


def test_what_is_wrong_fails_and_comes_with_what_mends_it(alone: CommandLine, home: Path) -> None:
    with reserved_port() as closed:
        wrong = {
            "CODY_CODEX_BIN": "/no/codex",
            "REDIS_URL": f"redis://:{SECRET}@127.0.0.1:{closed}/0",
            "CODEX_HOME": str(home),
        }
        done = alone("doctor", "--json", code=1, **wrong)
        text = alone("doctor", code=1, **wrong).stdout
    found = checks(done)
    assert found["codex"]["state"] == found["redis"]["state"] == "fail"
    assert "CODY_CODEX_BIN" in found["codex"]["mend"]
    assert found["credentials"]["state"] == "todo"
    assert "FAIL  codex" in text
    assert "-> correct or unset REDIS_URL" in text
    assert SECRET not in done.stdout + text


def test_a_folder_without_an_epic_is_still_to_be_made(alone: CommandLine, tmp_path: Path, home: Path) -> None:
    found = checks(alone("doctor", "--json", "--working-dir", str(tmp_path), CODEX_HOME=str(home)))
    assert found["epic"]["state"] == "todo"
    assert found["epic"]["mend"] == f"cody init {tmp_path}"


def test_a_folder_without_git_and_a_prompt_as_it_was_made_are_warnings(
    alone: CommandLine, tmp_path: Path, home: Path
) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    alone("init", str(fresh))
    found = checks(alone("doctor", "--json", "--working-dir", str(fresh), CODEX_HOME=str(home)))
    assert (found["git"]["state"], found["git"]["mend"]) == ("todo", f"git init {fresh}")
    assert found["epic"]["state"] == "todo"
    assert "is as `cody init` made it" in found["epic"]["found"]
    subprocess.run(["git", "init", "-q"], cwd=fresh, check=True)
    (fresh / ".cody-harness/current-epic/prompt.md").write_text("Build the shop.\n")
    found = checks(alone("doctor", "--json", "--working-dir", str(fresh), CODEX_HOME=str(home)))
    assert (found["git"]["state"], found["epic"]["state"]) == ("ok", "ok")


def test_a_port_that_another_program_holds_is_told(alone: CommandLine, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = checks(alone("doctor", "--json", code=1, CODY_PORT=port, CODEX_HOME=str(home)))
    assert found["server"]["state"] == "fail"
    assert f"another program has port {port}" in found["server"]["found"]
    assert "CODY_PORT" in found["server"]["mend"]


def test_a_running_server_is_found(cody: CommandLine, home: Path) -> None:
    found = checks(cody("doctor", "--json", CODEX_HOME=str(home)))
    assert found["server"]["found"].startswith("answers at http://127.0.0.1:")
    assert found["state folder"]["state"] == "ok"


@pytest.mark.parametrize(
    ("files", "env", "state", "words"),
    [
        ({}, {}, "todo", "neither"),
        ({}, {"CODEX_API_KEY": SECRET}, "ok", "CODEX_API_KEY is set"),
        ({}, {"OPENAI_API_KEY": SECRET}, "ok", "codex gets it as CODEX_API_KEY"),
        ({"auth.json": json.dumps({"OPENAI_API_KEY": SECRET})}, {}, "ok", "signed in"),
        ({"auth.json": ""}, {}, "todo", "neither"),
        (
            {"config.toml": 'model_provider = "p"\n[model_providers.p]\nenv_key = "P_KEY"\n'},
            {},
            "todo",
            "P_KEY is not set",
        ),
        (
            {"config.toml": 'model_provider = "p"\n[model_providers.p]\nenv_key = "P_KEY"\n'},
            {"P_KEY": SECRET},
            "ok",
            "pass it on: cody run --env P_KEY",
        ),
        ({"config.toml": 'model_provider = "p"\n[model_providers.p]\nname = "local"\n'}, {}, "ok", "needs no key"),
        ({"config.toml": 'model_provider = "openai"\n'}, {}, "todo", "neither"),
        ({"config.toml": "not = [toml"}, {}, "todo", "neither"),
    ],
)
def test_credentials(home: Path, files: dict[str, str], env: dict[str, str], state: str, words: str) -> None:
    for name, content in files.items():
        (home / name).write_text(content)
    agents = {name: value for name, value in env.items() if name != "P_KEY"}
    found = findings.credentials({"CODEX_HOME": str(home), **agents}, env)
    assert (found.state, words in found.found) == (state, True), found
    assert SECRET not in f"{found.found}{found.mend}"


async def test_a_redis_that_forgets_is_degraded(valkey_url: str) -> None:
    found = await findings.store(load_settings(redis_url=valkey_url))
    assert found.state == "ok"
    off = await findings.store(load_settings(embedded_redis=False))
    assert (off.state, off.mend) == ("fail", "export REDIS_URL=…")


def test_a_state_folder_that_others_can_read_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert findings.state_folder(folder).found.endswith("will be made")
    folder.mkdir(mode=0o755)
    assert findings.state_folder(folder).mend == f"chmod 700 {folder}"
    folder.chmod(0o700)
    assert findings.state_folder(folder).state == "ok"
    (tmp_path / "file").touch()
    assert findings.state_folder(tmp_path / "file").state == "fail"


def test_a_codex_that_is_none_or_too_old(tmp_path: Path) -> None:
    program = tmp_path / "codex"
    for script, words in (("echo codex-cli 0.1.0", "too old"), ("echo hello", "no version"), ("exit 3", "exit 3")):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        found, binary = findings.codex(load_settings(codex_bin=str(program)), {"PATH": os.defpath})
        assert found.state == "fail"
        assert words in found.found
        assert binary is None


def test_a_sandbox_that_does_not_work_says_what_to_do(tmp_path: Path) -> None:
    program = tmp_path / "codex"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    found = findings.sandbox(program, {"PATH": os.defpath})
    assert found.state == "fail"
    assert "No permissions to create a new namespace" in found.found
    assert "unprivileged_userns" in (found.mend or "")


def is_running(pid: int) -> bool:
    """Not ended, and not a zombie that waits for whoever adopted it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_probe_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    # A shell, and so much time: it must have started what it starts.
    code = 'sleep 600 & echo $! > "$0"; wait'
    answer = run_probe(["/bin/sh", "-c", code, str(pid_file)], timeout_s=10)
    assert answer.exit_code is None
    assert "did not end within 10 s" in answer.said
    give_up_at = time.monotonic() + 30
    while is_running(int(pid_file.read_text())):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_a_probe_of_nothing() -> None:
    answer = run_probe(["/no/such/program"], timeout_s=5)
    assert (answer.ok, answer.exit_code) == (False, None)
    assert "No such file" in answer.said
