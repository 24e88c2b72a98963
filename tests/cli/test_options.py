"""Options, usage errors and help: what can be said without a server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from cody.cli import exits, look_commands, run_command
from cody.cli.processes import MODULES
from cody.contracts.run import RunStatus
from cody.contracts.run_config import AgentName, RunConfig
from tests.cli.command_line import REPOSITORY, CommandLine

COMMANDS = (
    "init",
    "doctor",
    "prompt",
    "run",
    "serve",
    "runs",
    "show",
    "watch",
    "logs",
    "pause",
    "resume",
    "cancel",
    "stop",
)
FURTHER = ("demo", "replay", "version")


@pytest.fixture
def offline(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "state", tmp_path)


def test_the_choices_are_those_of_the_contract() -> None:
    fields = RunConfig.model_fields
    assert get_args(run_command.AgentChoice) == get_args(AgentName)
    assert get_args(run_command.SandboxChoice) == get_args(fields["sandbox"].annotation)
    assert get_args(run_command.ApprovalChoice) == get_args(fields["approval"].annotation)
    assert get_args(run_command.SessionChoice) == get_args(fields["session"].annotation)
    assert get_args(look_commands.StatusChoice) == get_args(RunStatus)


def test_help_names_every_command_and_every_exit_code(offline: CommandLine) -> None:
    text = offline("--help").stdout
    for command in (*COMMANDS, *FURTHER):
        assert f"\n  {command} " in text
    for code, words in exits.MEANING.items():
        assert f"{code:<5}{words}" in text


def test_the_page_about_the_command_line_has_the_exit_codes() -> None:
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    for code, words in exits.MEANING.items():
        assert f"| {code} | {words} |" in page


@pytest.mark.parametrize("command", [*COMMANDS, *FURTHER])
def test_every_command_explains_itself_with_an_example(offline: CommandLine, command: str) -> None:
    usage, _, rest = offline(command, "--help").stdout.partition("\n")
    assert command in usage
    assert "example" in rest.lower()


def test_a_command_of_another_package_parses_its_own_flags(offline: CommandLine) -> None:
    assert "--idle-exit" in offline("serve", "--help").stdout
    for command in MODULES:
        assert offline(command, "--no-such-flag", code=2).stderr


def test_help_loads_none_of_the_slow_modules() -> None:
    slow = ("pydantic", "httpx2", "rich", "asyncio", "redis", "uvicorn")
    code = f"import sys; import cody.cli.app; print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--max-turns", "0"], "--max-turns"),
        (["--epic", "a/b"], "--epic"),
        (["--pattern", "("], "--pattern"),
        (["--reasoning", "X Y"], "--reasoning"),
        (["--model", "-x"], "--model"),
        (["--loop-delay", "-1"], "--loop-delay"),
        (["--max-turn-sec", "-1"], "--max-turn-sec"),
        (["--sandbox", "none"], "--sandbox"),
        (["--agent", "command"], "needs a command: -- PROGRAM ARGS"),
        (["--agent", "codex", "--", "true"], "a command behind -- is for --agent command only"),
        (["--env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE"),
        (["--env", "1A=b"], "1A"),
        (["--no-such-option"], "--no-such-option"),
        (["checkout", "now then"], "did you mean: cody run -- checkout 'now then'"),
    ],
)
def test_wrong_usage_names_the_option_and_starts_nothing(
    offline: CommandLine, arguments: list[str], named: str
) -> None:
    done = offline("run", *arguments, code=exits.USAGE)
    assert named in done.stderr
    assert done.stdout == ""
    assert not offline.state_dir.exists()


@pytest.mark.parametrize(
    "arguments",
    [["runs"], ["show", "abcd"], ["watch", "abcd"], ["logs", "abcd"], ["pause", "abcd"], ["cancel", "abcd"]],
)
def test_without_a_server_it_says_how_to_get_one(offline: CommandLine, arguments: list[str]) -> None:
    done = offline(*arguments, code=exits.UNREACHABLE)
    assert "no runs yet" in done.stderr
    assert "cody run" in done.stderr
    assert "Traceback" not in done.stderr
    assert not offline.state_dir.exists()


def test_a_server_that_was_named_wrongly_is_not_to_be_started_here(offline: CommandLine) -> None:
    done = offline("runs", code=exits.UNREACHABLE, CODY_URL="http://127.0.0.1:1")
    assert "no Cody server answers at http://127.0.0.1:1" in done.stderr
    assert "unset CODY_URL" in done.stderr
    assert "cody serve" not in done.stderr


@pytest.mark.parametrize("command", [name for name in MODULES if name != "projector"])
def test_the_shell_completes_the_options_of_commands_that_parse_their_own(offline: CommandLine, command: str) -> None:
    usage = offline(command, "--help").stdout.partition("\n\n")[0]
    words = {"_CODY_COMPLETE": "complete_bash", "COMP_WORDS": f"cody {command} --", "COMP_CWORD": "2"}
    assert set(re.findall(r"(--[a-z-]+)", usage)) | {"--help"} == set(offline(code=None, **words).stdout.split())


def test_the_shell_completes_the_values_of_a_choice(offline: CommandLine) -> None:
    words = {"_CODY_COMPLETE": "complete_bash", "COMP_WORDS": "cody serve --on-shutdown fi", "COMP_CWORD": "3"}
    assert offline(code=None, **words).stdout.split() == ["finish-turn"]


def test_a_state_folder_that_is_a_file_is_told(offline: CommandLine) -> None:
    offline.state_dir.touch()
    for command in (["run"], ["runs"], ["stop"], ["serve"]):
        done = offline(*command, code=exits.ERROR)
        assert f"{offline.state_dir} is no folder" in done.stderr
        assert "CODY_STATE_DIR (--state-dir)" in done.stderr


def test_a_state_folder_that_can_not_be_written_is_told(offline: CommandLine) -> None:
    (offline.state_dir / "server.start").mkdir(parents=True)
    done = offline("run", "--", "true", code=exits.ERROR)
    assert f"the state folder {offline.state_dir} can't be used (" in done.stderr
    assert "CODY_STATE_DIR (--state-dir)" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_told_in_a_sentence(offline: CommandLine) -> None:
    done = offline("runs", code=exits.ERROR, CODY_LOCK_TTL_MS="soon")
    assert "CODY_LOCK_TTL_MS" in done.stderr
    assert "Traceback" not in done.stderr


def test_version(offline: CommandLine) -> None:
    assert offline("--version").stdout == offline("version").stdout
    assert offline.json("version")["version"] in offline("version").stdout
