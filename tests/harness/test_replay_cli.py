"""`python -m harness.replay` as a user runs it, and the folders that it writes."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import harness
from cody.errors import ConfigurationError
from harness.replay.codex_home import write_codex_home
from harness.replay.demo_workspace import DEMO_FILES, create_demo_workspace
from harness.replay.scenario_file import bundled_scenarios, load_scenario
from tests.harness.replay_codex import run_codex

_SOURCE = Path(str(harness.__file__)).parents[1]


async def _started(folder: Path, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "harness.replay", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_SOURCE)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _run(folder: Path, *words: str) -> tuple[int | None, str, str]:
    process = await _started(folder, *words)
    async with asyncio.timeout(60):
        stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


@asynccontextmanager
async def _serving(folder: Path, *words: str) -> AsyncIterator[tuple[str, Mapping[str, str]]]:
    """The URL and the variables of the ready line; at the end the server is stopped as a user stops it."""
    process = await _started(folder, *words)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        ready, url, *variables = shlex.split(line)
        assert ready == "ready"
        yield url, dict(variable.split("=", 1) for variable in variables)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            rest, stderr = await process.communicate()
        assert (process.returncode, rest) == (0, b""), stderr.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_serve_tells_codex_all_it_needs(tmp_path: Path) -> None:
    home = tmp_path / "a home with spaces"
    words = ["serve", "--scenario", "one_message", "--codex-home", str(home)]
    async with _serving(tmp_path, *words) as (url, env):
        turn = await run_codex(tmp_path, env)

    assert turn.messages == ["Nothing to do here."]
    assert (env["CODEX_HOME"], sorted(env)) == (str(home), ["CODEX_HOME", "CODY_REPLAY_KEY", "NO_PROXY"])
    assert tomllib.loads((home / "config.toml").read_text())["model_providers"]["replay"]["base_url"] == url


async def test_serve_without_codex_home_tells_an_sdk_what_it_needs(tmp_path: Path) -> None:
    async with _serving(tmp_path, "serve", "--scenario", "one_message") as (url, env):
        assert env == {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "replay"}


async def test_record_writes_what_serve_plays(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    async with _serving(tmp_path, "serve", "--scenario", "one_message") as (upstream, _):
        words = ["--upstream", upstream, "--out", str(out), "--codex-home", str(tmp_path / "home")]
        async with _serving(tmp_path, "record", *words) as (_, env):
            assert "OPENAI_API_KEY" not in env, "the key is the user's own"
            await run_codex(tmp_path, {**env, "OPENAI_API_KEY": "sk-the-user-s-own"})

    assert load_scenario(out).turns[0].responses[0].items == load_scenario("one_message").turns[0].responses[0].items
    async with _serving(tmp_path, "serve", "--scenario", str(out), "--codex-home", str(tmp_path / "other")) as (_, env):
        assert (await run_codex(tmp_path, env)).messages == ["Nothing to do here."]


async def test_list_names_every_bundled_scenario(tmp_path: Path) -> None:
    code, stdout, _ = await _run(tmp_path, "list")
    assert code == 0
    assert [line.split()[0] for line in stdout.splitlines()] == list(bundled_scenarios())


async def test_help_has_examples_that_parse(tmp_path: Path) -> None:
    code, stdout, _ = await _run(tmp_path, "--help")
    assert code == 0
    assert "python -m harness.replay serve --scenario demo --codex-home" in stdout


async def test_a_bad_scenario_file_is_an_error_with_the_field_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\nresponses:\n  - delay_ms: soon\n    usage: {}\n", encoding="utf-8")
    code, stdout, stderr = await _run(tmp_path, "serve", "--scenario", "bad.yaml")
    assert (code, stdout) == (1, "")
    assert stderr.startswith("error: scenario bad.yaml is not valid:\n  responses[0].delay_ms: ")


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["serve", "--scenario", "demo", "--host", "0.0.0.0"], 1, "is not a loopback address"),
        (["serve", "--scenario", "demo", "--port", "99999"], 1, "port 99999"),
        (["serve", "--scenario", "demo", "--delay-factor", "-1"], 2, "between 0 and 1000"),
        (["serve"], 2, "--scenario"),
        (["record", "--upstream", "http://127.0.0.1:1/v1", "--out", "no/such/folder.yaml"], 1, "folder"),
    ],
)
async def test_wrong_usage_is_refused(tmp_path: Path, words: list[str], code: int, reason: str) -> None:
    result, stdout, stderr = await _run(tmp_path, *words)
    assert (result, stdout) == (code, "")
    assert reason in stderr
    assert "Traceback" not in stderr


async def test_the_demo_workspace_is_written_into_an_empty_folder_only(tmp_path: Path) -> None:
    code, _, _ = await _run(tmp_path, "demo-workspace", "pricing")
    assert code == 0
    written = {str(f.relative_to(tmp_path / "pricing")) for f in (tmp_path / "pricing").rglob("*") if f.is_file()}
    assert written == set(DEMO_FILES)
    (tmp_path / "pricing" / "pricing.py").write_text("mine", encoding="utf-8")
    code, _, stderr = await _run(tmp_path, "demo-workspace", "pricing")
    assert code == 1
    assert "is not empty" in stderr
    assert (tmp_path / "pricing" / "pricing.py").read_text(encoding="utf-8") == "mine"


def test_the_demo_workspace_may_be_a_repository_already(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    create_demo_workspace(tmp_path)
    assert (tmp_path / ".cody-harness" / "current-epic" / "codys-log.md").is_file()


def test_a_codex_home_is_renewed_but_a_user_s_own_is_left_alone(tmp_path: Path) -> None:
    first = write_codex_home(tmp_path / "home", "http://127.0.0.1:1/v1")
    second = write_codex_home(tmp_path / "home", "http://127.0.0.1:2/v1", env_key="OTHER", model='odd "model"')
    config = tomllib.loads((tmp_path / "home" / "config.toml").read_text(encoding="utf-8"))
    assert config["model"] == 'odd "model"'
    assert config["model_providers"]["replay"]["base_url"] == "http://127.0.0.1:2/v1"
    assert config["model_providers"]["replay"]["env_key"] == "OTHER"
    assert first["CODY_REPLAY_KEY"] != second["OTHER"], "each home is a session of its own"

    own = tmp_path / "own"
    own.mkdir()
    (own / "config.toml").write_text('model = "mine"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="stays as it is"):
        write_codex_home(own, "http://127.0.0.1:1/v1")
    assert (own / "config.toml").read_text(encoding="utf-8") == 'model = "mine"\n'
