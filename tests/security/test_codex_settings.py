"""codex never takes its settings from where its agent can write them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from cody.contracts.run_config import RunConfig
from cody.errors import Forbidden
from cody.settings import Settings
from harness.agents.base import TurnRequest
from harness.agents.codex import CodexAgent
from harness.permission import check_allowed
from harness.replay.codex_home import write_codex_home
from harness.replay.scenario import Answer, CustomToolCall, FunctionCall, Message, Scenario, Turn, Usage
from harness.replay.server import ReplayServer


@pytest.mark.parametrize(
    "home",
    [
        "{repo}/codex",
        "{repo}",
        "{repo}/.cody-harness/.codex",
        "codex",
        ".codex/../codex",
        "{repo}/../repo/codex",
        "{root}/in/codex",
        "{root}/into",
        "{repo}/out",
        "{repo}/out/codex",
        "{repo}/.codex",
    ],
)
def test_codex_settings_that_its_agent_could_write_need_the_flag(
    settings: Settings, root: Path, tmp_path: Path, home: str
) -> None:
    """`.codex` is a link here; `into` leads into the workspace, `out` leads out of it: the agent could turn it back."""
    repo = root / "repo"
    (root / "in").symlink_to(repo)
    (root / "into").symlink_to(repo / "codex")
    (repo / "out").symlink_to(tmp_path)
    (repo / ".codex").symlink_to(tmp_path)
    config = RunConfig(
        working_dir=str(repo), sandbox="read-only", env={"CODEX_HOME": home.format(repo=repo, root=root)}
    )
    with pytest.raises(Forbidden, match=r"CODEX_HOME .* is in workingDir .*--allow-danger"):
        check_allowed(config, settings)
    check_allowed(config, settings.model_copy(update={"allow_danger": True}))
    check_allowed(config.model_copy(update={"agent": "command", "command": ["true"]}), settings)


def test_codex_settings_elsewhere_are_taken(
    settings: Settings, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODEX_HOME", raising=False)
    repo = root / "repo"
    for env in (
        {"CODEX_HOME": f"{root}/codex"},
        {"CODEX_HOME": f"{repo}2"},
        {"CODEX_HOME": f"{repo}/.codex"},
        {"CODEX_HOME": ""},
        {"HOME": str(repo)},
        {},
    ):
        check_allowed(RunConfig(working_dir=str(repo), env=env), settings)
    with pytest.raises(Forbidden, match="CODEX_HOME"):
        check_allowed(RunConfig(working_dir=str(root), env={"HOME": str(repo)}), settings)
    monkeypatch.setenv("CODEX_HOME", f"{repo}/codex")
    with pytest.raises(Forbidden, match="CODEX_HOME"):
        check_allowed(RunConfig(working_dir=str(repo)), settings)


async def test_codex_keeps_its_agent_from_the_settings_in_the_workspaces_own_folder(root: Path, tmp_path: Path) -> None:
    """Why that one place in a workspace is taken: a repository that is a home folder has it."""
    repo = root / "repo"
    script = "cd .codex && (echo >> config.toml; touch more; mv ../.codex ../aside); cd .. && touch written; true"
    call = Answer(items=(FunctionCall(type="function_call", name="exec_command", arguments={"cmd": script}),))
    text = "*** Begin Patch\n*** Add File: .codex/more\n+notify = 1\n*** Add File: patched\n+x\n*** End Patch\n"
    patch = Answer(items=(CustomToolCall(type="custom_tool_call", name="apply_patch", input=text),))
    own = text.replace(".codex/more", "own")
    allowed = Answer(items=(CustomToolCall(type="custom_tool_call", name="apply_patch", input=own),))
    word = Answer(items=(Message(type="message", text="Done."),), usage=Usage(input=10, output=5))
    scenario = Scenario(name="reach", on_exhausted="repeat_last", turns=(Turn(responses=(call, patch, allowed, word)),))
    prompt = tmp_path / "prompt.md"
    prompt.write_text("Go on.")
    async with ReplayServer(scenario) as server:
        env = write_codex_home(repo / ".codex", server.base_url, env_key="MODEL_API_KEY", key="sk-of-the-model")
        before = (repo / ".codex" / "config.toml").read_bytes()
        launch = CodexAgent().launch(
            TurnRequest(
                run_id="run",
                turn=1,
                config=RunConfig(working_dir=str(repo)),
                prompt=prompt,
                base_env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **env},
            )
        )

        def codex() -> None:
            with launch.stdin.open("rb") as stdin:
                subprocess.run(
                    launch.argv, cwd=launch.cwd, env=dict(launch.env), stdin=stdin, capture_output=True, check=True
                )

        await asyncio.to_thread(codex)
    assert (repo / "written").exists()
    assert (repo / "own").exists()
    assert (repo / ".codex" / "config.toml").read_bytes() == before
    assert not (repo / ".codex" / "more").exists()
