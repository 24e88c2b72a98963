"""exec: real commands behind the guard, in the sandbox, and all the ways in which they misbehave."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import psutil
import pytest

from harness.tools.execution import ExecLimits
from harness.tools.runner import ToolPolicy, ToolRunner
from harness.tools.sandbox import working_bubblewrap
from tests.harness.tools.conftest import LIMITS, Use, runner_of, user_of


def running(marker: str) -> list[int]:
    """Processes with this text in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(marker in part for part in process.info["cmdline"] or []):
            found.append(process.pid)
    return found


async def test_a_shell_text_and_an_argv(use: Use, workspace: Path) -> None:
    shell = await use("exec", command="echo $((40 + 2)); echo oops >&2; pwd")
    assert shell.success
    assert shell.output.startswith("exit code 0\n")
    assert {"42", "oops", str(workspace)} <= set(shell.output.split("\n"))
    assert (await use("exec", command=["echo", "$HOME; x"])).output == "exit code 0\n$HOME; x\n"


async def test_the_exit_code_is_told(use: Use) -> None:
    failed = await use("exec", command="exit 7")
    assert (failed.success, failed.output) == (False, "exit code 7\n")


async def test_a_program_that_does_not_exist(use: Use) -> None:
    result = await use("exec", command=["no-such-program"])
    assert not result.success
    assert "no-such-program" in result.output


async def test_the_workspace_is_writable_and_nothing_else(use: Use, workspace: Path) -> None:
    outside = workspace.parent / "outside"
    result = await use("exec", command=f"echo in > inside; echo out > {outside}; echo out > /usr/evil; ls")
    assert (workspace / "inside").read_text() == "in\n"
    assert not outside.exists()
    assert not Path("/usr/evil").exists()
    assert "inside" in result.output


async def test_a_read_only_sandbox_writes_nowhere(workspace: Path) -> None:
    use = user_of(runner_of(workspace, sandbox="read-only"))
    result = await use("exec", command="cat notes.txt; echo x > notes.txt")
    assert not result.success
    assert "three" in result.output
    assert (workspace / "notes.txt").read_text() == "one\ntwo\nthree\n"


async def test_git_hooks_can_not_be_planted(use: Use, workspace: Path) -> None:
    (workspace / ".git" / "hooks").mkdir(parents=True)
    assert not (await use("exec", command="echo evil > .git/hooks/pre-commit")).success
    assert list((workspace / ".git" / "hooks").iterdir()) == []


async def test_there_is_no_network(use: Use) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        result = await use("exec", command=f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected")
    assert not result.success
    assert "connected" not in result.output.split("\n")


async def test_the_environment_is_what_was_given(use: Use) -> None:
    output = (await use("exec", command=["env"])).output
    names = {line.partition("=")[0] for line in output.split("\n")[1:] if line}
    assert names <= {"PATH", "PWD", "CODY_GUARD_ID"}


async def test_folders_that_are_hidden_are_empty(workspace: Path) -> None:
    state = workspace.parent / "state"
    state.mkdir()
    (state / "token").write_text("t0ken")
    use = user_of(runner_of(workspace, hidden=(state,)))
    result = await use("exec", command=f"cat {state}/token")
    assert (result.success, "t0ken" in result.output) == (False, False)


async def test_full_access_has_no_sandbox(workspace: Path) -> None:
    use = user_of(runner_of(workspace, sandbox="danger-full-access"))
    assert (await use("exec", command="echo out > ../outside")).success
    assert (workspace.parent / "outside").read_text() == "out\n"


async def test_without_a_sandbox_nothing_is_run(workspace: Path) -> None:
    none = await working_bubblewrap([Path("/bin/false"), workspace / "missing"])
    assert isinstance(none, str)
    runner = ToolRunner(ToolPolicy(workspace), env={}, bubblewrap=none)
    result = await user_of(runner)("exec", command="echo x > ran")
    assert not result.success
    assert "sandbox workspace-write can't be had here" in result.output
    assert not (workspace / "ran").exists()


async def test_the_time_limit_ends_a_command_that_ignores_sigterm(workspace: Path) -> None:
    marker = f"deaf-{workspace.parent.name}-{id(workspace)}"
    use = user_of(runner_of(workspace))
    text = f"trap '' TERM; : {marker}; echo begun; while :; do sleep 0.05; done"
    result = await use("exec", command=text, timeout_s=0.5)
    assert not result.success
    assert "longer than 0.5 s" in result.output
    assert "begun" in result.output
    assert running(marker) == []


async def test_a_longer_time_than_allowed_is_not_given(workspace: Path) -> None:
    use = user_of(runner_of(workspace, limits=ExecLimits(wall_s=0.2, max_wall_s=0.3, grace_s=0.1)))
    assert "longer than 0.3 s" in (await use("exec", command="sleep 600", timeout_s=600)).output


async def test_a_flood_is_ended_and_its_ends_are_kept(use: Use) -> None:
    result = await use("exec", command="echo first; yes flood")
    assert not result.success
    assert "wrote too much" in result.output
    assert "first\nflood" in result.output
    assert "bytes omitted" in result.output
    assert len(result.output) < 2 * LIMITS.max_output_bytes


async def test_a_long_output_keeps_its_beginning_and_its_end(use: Use) -> None:
    result = await use("exec", command="seq 1 20000")
    assert result.success
    assert result.output.startswith("exit code 0\n1\n2\n")
    assert result.output.endswith("\n20000\n")


@pytest.mark.parametrize("sandbox", ["workspace-write", "danger-full-access"])
async def test_what_a_command_leaves_behind_is_ended(workspace: Path, sandbox: str) -> None:
    marker = f"left-{sandbox}-{id(workspace)}"
    use = user_of(runner_of(workspace, sandbox=sandbox))
    result = await use(
        "exec", command=f"setsid bash -c ': {marker}; while :; do sleep 0.05; done' >/dev/null 2>&1 & exit 0"
    )
    assert result.output.startswith("exit code 0")
    assert running(marker) == []


async def test_a_cancelled_call_ends_its_command(workspace: Path) -> None:
    marker = f"cancelled-{id(workspace)}"
    calling = asyncio.ensure_future(
        user_of(runner_of(workspace))("exec", command=f": {marker}; touch begun; while :; do sleep 0.05; done")
    )
    async with asyncio.timeout(20):
        while not (workspace / "begun").exists():
            await asyncio.sleep(0.01)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert running(marker) == []


@pytest.mark.parametrize("workdir", ["..", "link", "/", "missing", "notes.txt"])
async def test_the_folder_is_in_the_workspace(use: Use, workspace: Path, workdir: str) -> None:
    (workspace / "link").symlink_to("/")
    assert not (await use("exec", command="true", workdir=workdir)).success


async def test_a_folder_of_the_workspace(use: Use, workspace: Path) -> None:
    (workspace / "src").mkdir()
    assert (await use("exec", command="pwd", workdir="src")).output == f"exit code 0\n{workspace}/src\n"
