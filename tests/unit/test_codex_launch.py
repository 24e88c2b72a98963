"""How codex is started: its options, its binary, its version."""

from __future__ import annotations

import itertools
import os
import platform
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cody.contracts.run_config import RunConfig
from cody.errors import AgentUnavailable
from harness.agents.base import TurnRequest
from harness.agents.codex import CodexAgent, toml_string
from harness.agents.codex_binary import (
    MIN_VERSION,
    bundled_codex,
    check_version,
    find_codex,
    parse_version,
)

MACHINE = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
TRIPLE = f"{MACHINE}-apple-darwin" if sys.platform == "darwin" else f"{MACHINE}-unknown-linux-musl"
THREAD = "01a1fabf-4d00-72e2-9524-dc7f7cfabec3"
PATH = os.environ["PATH"]


def request(working_dir: Path, *, thread: str | None = None, **config: object) -> TurnRequest:
    return TurnRequest(
        run_id="run",
        turn=1,
        config=RunConfig.model_validate({"working_dir": str(working_dir), **config}),
        prompt=working_dir / "prompt.md",
        base_env={"PATH": PATH, "LANG": "C", "A": "base"},
        resume_thread=thread,
    )


def arguments(working_dir: Path, *, commits: bool = False, thread: str | None = None, **config: object) -> list[str]:
    agent = CodexAgent(commits=commits)
    return list(agent.launch(request(working_dir, thread=thread, **config)).argv[1:])


def settings_in(argv: list[str]) -> dict[str, object]:
    """The `-c` options as codex reads them: a dotted path, and a TOML value."""
    found: dict[str, object] = {}
    for option, value in itertools.pairwise(argv):
        if option == "-c":
            key, _, text = value.partition("=")
            found[key] = tomllib.loads(f"value = {text}")["value"]
    return found


def program(path: Path, text: str = "\x7fELF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_fresh_turn(tmp_path: Path) -> None:
    argv = arguments(tmp_path, model="gpt-5.5", reasoning="high")
    assert argv[:2] == ["exec", "--json"]
    assert argv[-1] == "-"
    assert {"--cd=.", "--sandbox=workspace-write", "--model=gpt-5.5", "--color=never"} <= set(argv)
    assert settings_in(argv) == {
        "sandbox_mode": "workspace-write",
        "approval_policy": "never",
        "model_reasoning_effort": "high",
        "features.shell_snapshot": False,
        "shell_environment_policy.ignore_default_excludes": False,
    }


def test_what_is_not_set_is_left_to_codex(tmp_path: Path) -> None:
    argv = arguments(tmp_path)
    assert not any(option.startswith("--model") for option in argv)
    assert "model_reasoning_effort" not in settings_in(argv)


def test_a_resumed_turn_has_its_options_before_resume(tmp_path: Path) -> None:
    argv = arguments(tmp_path, thread=THREAD, sandbox="danger-full-access")
    assert argv[-4:] == ["resume", "--", THREAD, "-"]
    assert "--sandbox=danger-full-access" in argv[:-4]
    assert settings_in(argv)["sandbox_mode"] == "danger-full-access"


def test_a_thread_id_is_never_an_option(tmp_path: Path) -> None:
    argv = arguments(tmp_path, thread="--last")
    assert argv[argv.index("--last") - 1] == "--"


def test_the_prompt_is_stdin_and_config_env_wins(tmp_path: Path) -> None:
    launch = CodexAgent().launch(request(tmp_path, env={"A": "config", "CODEX_HOME": "/home/dev/.codex"}))
    assert launch.stdin == tmp_path / "prompt.md"
    assert launch.cwd == tmp_path
    assert launch.env == {"PATH": PATH, "LANG": "C", "A": "config", "CODEX_HOME": "/home/dev/.codex"}


def test_only_a_git_folder_of_the_workspace_itself_may_be_opened(tmp_path: Path) -> None:
    own, plain, linked, worktree = (tmp_path / name for name in ("own", "plain", "linked", "worktree"))
    (own / ".git").mkdir(parents=True)
    (own / "sub").mkdir()
    plain.mkdir()
    linked.mkdir()
    (linked / ".git").symlink_to(own / ".git")
    worktree.mkdir()
    (worktree / ".git").write_text(f"gitdir: {own}/.git/worktrees/x\n")
    assert "--add-dir=.git" in arguments(own, commits=True)
    for folder in (own / "sub", plain, linked, worktree):
        assert not any(option.startswith("--add-dir") for option in arguments(folder, commits=True))
    for quiet in (arguments(own), arguments(own, commits=True, sandbox="read-only")):
        assert not any(option.startswith("--add-dir") for option in quiet)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_toml_reads_back_what_was_quoted(text: str) -> None:
    assert tomllib.loads(f"x = {toml_string(text)}") == {"x": text}


def test_the_wheels_binary_is_native_and_new_enough() -> None:
    binary = bundled_codex()
    assert binary is not None
    printed = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    check_version(printed)
    assert (parse_version(printed) or ()) >= MIN_VERSION


@pytest.mark.parametrize("text", ["codex-cli 0.162.9", "codex-cli 0.9.0\n", "", "command not found", "v24.1"])
def test_old_and_strange_versions_are_refused_with_what_mends_it(text: str) -> None:
    with pytest.raises(AgentUnavailable, match=r"cody\[codex\]"):
        check_version(text)


@pytest.mark.parametrize(
    "text", ["codex-cli 0.163.0", "codex-cli 0.169.0\n", "codex-cli 0.170.0-alpha.2", "codex 1.0.0"]
)
def test_new_versions_are_taken(text: str) -> None:
    check_version(text)


def test_a_named_binary_comes_before_the_wheels(tmp_path: Path) -> None:
    named = program(tmp_path / "codex-nightly")
    bundled = program(tmp_path / "bundled")
    assert find_codex(str(named), bundled=bundled, path="") == named
    assert find_codex("codex-nightly", bundled=bundled, path=str(tmp_path)) == named
    assert find_codex(None, bundled=bundled, path=str(tmp_path)) == bundled


def test_a_relative_name_is_relative_to_the_server_not_to_the_workspace(tmp_path: Path) -> None:
    named = program(tmp_path / "codex")
    assert find_codex(os.path.relpath(named), bundled=None, path="") == named


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable"])
def test_a_named_binary_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    named = tmp_path / "codex"
    if kind == "folder":
        named.mkdir()
    elif kind == "not executable":
        named.write_text("x")
    with pytest.raises(AgentUnavailable, match="CODY_CODEX_BIN"):
        find_codex(str(named), bundled=program(tmp_path / "bundled"), path=PATH)


def test_without_the_wheel_codex_is_looked_for_on_path(tmp_path: Path) -> None:
    found = program(tmp_path / "bin" / "codex")
    assert find_codex(None, bundled=None, path=f"/nowhere:{found.parent}") == found
    assert find_codex(None, bundled=tmp_path / "gone", path=str(found.parent)) == found


def test_no_codex_at_all_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(AgentUnavailable, match=r"pip install 'cody\[codex\]'"):
        find_codex(None, bundled=None, path=str(tmp_path))


@pytest.mark.parametrize(
    "vendor",
    [
        f"codex-linux-x64/vendor/{TRIPLE}/bin/codex",
        f"codex/node_modules/@openai/codex-linux-x64/vendor/{TRIPLE}/bin/codex",
        f"codex/vendor/{TRIPLE}/codex/codex",
    ],
    ids=["hoisted", "nested", "older"],
)
def test_npms_wrapper_is_replaced_by_the_native_binary(tmp_path: Path, vendor: str) -> None:
    scope = tmp_path / "lib" / "node_modules" / "@openai"
    wrapper = program(scope / "codex" / "bin" / "codex.js", "#!/usr/bin/env node\n")
    program(scope / "codex-linux-x64" / "vendor" / "s390x-unknown-linux-musl" / "bin" / "codex")
    native = program(scope / vendor)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").symlink_to(wrapper)
    assert find_codex(None, bundled=None, path=str(tmp_path / "bin")) == native
    assert find_codex(str(tmp_path / "bin" / "codex"), bundled=None, path="") == native


def test_a_wrapper_without_its_native_binary_is_used_as_it_is(tmp_path: Path) -> None:
    wrapper = program(tmp_path / "codex", "#!/bin/sh\n")
    assert find_codex(None, bundled=None, path=str(tmp_path)) == wrapper


def test_the_key_that_people_set_reaches_codex_under_the_name_it_reads(tmp_path: Path) -> None:
    def env(**given: str) -> dict[str, str]:
        return dict(CodexAgent().launch(request(tmp_path, env=given)).env)

    assert env(OPENAI_API_KEY="sk-1")["CODEX_API_KEY"] == "sk-1"
    assert env(OPENAI_API_KEY="sk-1", CODEX_API_KEY="sk-2")["CODEX_API_KEY"] == "sk-2"
    assert "CODEX_API_KEY" not in env()
