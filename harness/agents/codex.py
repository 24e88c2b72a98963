"""codex as an agent: how `codex exec` is started for one turn.

Options as of codex 0.163.0 and 0.169.0. The prompt is stdin (`-`): as an argument it would stand in every process
listing, and codex hangs on an open stdin beside it.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterator
from pathlib import Path

from cody.contracts.run_config import RunConfig
from harness.agents.base import Launch, TurnReader, TurnRequest
from harness.agents.codex_binary import bundled_codex, find_codex
from harness.agents.codex_reader import CodexReader


class CodexAgent:
    """Runs `codex exec --json`. `binary` is CODY_CODEX_BIN.

    `commits` lets a workspace-write sandbox write workingDir's own .git. Off, because hooks and core.fsmonitor written
    there run outside the sandbox, at the next git command of anyone; codex keeps .git read-only for that reason.
    """

    def __init__(self, binary: str | None = None, *, commits: bool = False) -> None:
        self._binary = binary
        self._commits = commits

    @property
    def name(self) -> str:
        return "codex"

    def launch(self, request: TurnRequest) -> Launch:
        """How to start the turn; raises AgentUnavailable when there is no codex to start."""
        # Looked up in the server's PATH, not in one that config.env sets: a run does not choose the binary.
        path = request.base_env.get("PATH", os.defpath)
        binary = find_codex(self._binary, bundled=bundled_codex(), path=path)
        return Launch(
            argv=(str(binary), *_arguments(request, commits=self._commits)),
            cwd=Path(request.config.working_dir),
            env=_environment(request),
            stdin=request.prompt,
        )

    def reader(self, request: TurnRequest) -> TurnReader:
        given = os.path.normpath(request.config.working_dir)
        # codex tells paths under the folder that it was started in, the real one; a model may have written either.
        return CodexReader(request, roots=(given, os.path.realpath(given)))


def _arguments(request: TurnRequest, *, commits: bool) -> Iterator[str]:
    """Values are joined to their options by `=`, so that none can be taken for an option."""
    config = request.config
    # The folder that its guard put codex in, which is the one that was allowed. A path would be looked up again, and what
    # its links lead to by then would be the sandbox's writable folder. (One with a link in it is of no use anyway: where
    # that is in a writable folder (/tmp), the sandbox runs nothing.)
    yield from ("exec", "--json", "--color=never", "--cd=.", f"--sandbox={config.sandbox}")
    # codex wants a git repository as a sign that the folder is meant. The server's list of allowed roots says that
    # already, and a run may well begin in an empty folder.
    yield "--skip-git-repo-check"
    if config.model is not None:
        yield f"--model={config.model}"
    for key, value in _settings(config):
        yield from ("-c", f"{key}={value}")
    own_git = Path(config.working_dir) / ".git"
    # Neither a link nor a worktree's .git file: what they name may be anywhere, and the agent could have written them.
    if commits and config.sandbox == "workspace-write" and own_git.is_dir() and not own_git.is_symlink():
        yield "--add-dir=.git"  # adds to the user's own writable_roots, where `-c` would replace them
    if request.resume_thread is not None:
        yield from ("resume", "--", request.resume_thread)
    yield "-"


def _settings(config: RunConfig) -> Iterator[tuple[str, str]]:
    # Again, as a setting: a resumed conversation does not keep its sandbox, and `resume` has no such option.
    yield "sandbox_mode", toml_string(config.sandbox)
    yield "approval_policy", toml_string(config.approval)
    if config.reasoning is not None:
        yield "model_reasoning_effort", toml_string(config.reasoning)
    # Its snapshot process outlives the turn, which would then end it and say so, every turn.
    yield "features.shell_snapshot", "false"
    # Without it, the provider's key is in the environment of every command that the model runs.
    yield "shell_environment_policy.ignore_default_excludes", "false"


def _environment(request: TurnRequest) -> dict[str, str]:
    """`codex exec` 0.163 takes its key from CODEX_API_KEY only; OPENAI_API_KEY is what people set."""
    env = {**request.base_env, **request.config.env}
    if "OPENAI_API_KEY" in env:
        env.setdefault("CODEX_API_KEY", env["OPENAI_API_KEY"])
    return env


def toml_string(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, but for DEL and as long as nothing becomes a surrogate pair."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
