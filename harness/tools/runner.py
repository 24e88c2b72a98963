"""Carrying out a model's calls of tools in one workspace: what `stream_with_tools` calls for each of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import ValidationError

from cody.contracts.responses import FunctionCall
from cody.contracts.tool_names import TOOL_NAMES, ToolName, ToolSandbox
from cody.errors import Forbidden, InvalidRequest
from cody.pipeline.model_request import Tool
from cody.pipeline.providers.tool_loop import ToolResult
from cody.redaction import Redactor, looks_secret
from cody.settings import Settings, agent_environment
from harness.launch import AgentStartError
from harness.permission import is_inside
from harness.tools.definitions import (
    ARGUMENTS,
    MAX_ARGUMENT_CHARS,
    WRITING_TOOLS,
    ApplyPatch,
    Arguments,
    Exec,
    ListDir,
    ReadFile,
    definitions,
)
from harness.tools.execution import ExecLimits, execute, told
from harness.tools.looking import list_entries, read_lines
from harness.tools.patching import apply_patch
from harness.tools.refusal import ToolRefused
from harness.tools.sandbox import Bubblewrap, find_bubblewrap
from harness.tools.workspace_files import WorkspaceFiles

log = structlog.get_logger(__name__)

SHELL = "/bin/bash"
MAX_READ_BYTES = 64 << 10
_INHERITED = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ"})
"""No key of a provider, no proxy: commands have no network, and the model reads what they print."""


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """What the tools of one turn may do. `hidden`: folders that no tool reads (without a sandbox, commands do)."""

    workspace: Path
    sandbox: ToolSandbox = "workspace-write"
    allowed: frozenset[ToolName] = frozenset(TOOL_NAMES)
    limits: ExecLimits = field(default_factory=ExecLimits)
    max_read_bytes: int = MAX_READ_BYTES
    hidden: tuple[Path, ...] = ()


class ToolRunner:
    """The tools of one workspace: a Toolbox for the answer to one request."""

    def __init__(
        self,
        policy: ToolPolicy,
        *,
        env: Mapping[str, str],
        redactor: Redactor | None = None,
        bubblewrap: Bubblewrap | str | None = None,
    ) -> None:
        """Starts nothing. `env` is all of the environment that commands get.

        `bubblewrap`: the sandbox, or why there is none; None = it is looked for when it is first needed.
        """
        self._policy = policy
        self._files = WorkspaceFiles(policy.workspace, policy.hidden)
        self._env = dict(env)
        self._redactor = redactor or Redactor(())
        self._bubblewrap = bubblewrap
        self.allowed = policy.allowed - WRITING_TOOLS if policy.sandbox == "read-only" else policy.allowed

    @property
    def tools(self) -> tuple[Tool, ...]:
        return definitions(self.allowed)

    async def run(self, call: FunctionCall) -> ToolResult:
        """The call's result. Whatever the call says, the model gets an answer; only cancellation goes through.

        Secrets that this process knows of are taken out of it.
        """
        try:
            result = await self._carried_out(self._read(call))
        except ToolRefused as error:
            result = ToolResult(error.message, success=False)
        except AgentStartError as error:
            result = ToolResult(f"the command could not be started: {error.message}", success=False)
        log.info("tool.ran", tool=call.name[:64], call_id=call.call_id, success=result.success)
        return ToolResult(self._redactor.clean_text(result.output), result.success)

    def _read(self, call: FunctionCall) -> Arguments:
        """The call's arguments; raises ToolRefused for what is no call of an allowed tool."""
        name = next((known for known in TOOL_NAMES if known == call.name), None)
        if name is None or name not in self.allowed:
            offered = ", ".join(tool.name for tool in self.tools) or "none"
            raise ToolRefused(f"no tool {call.name[:64]!r} here (there are: {offered})")
        if len(call.arguments) > 2 * MAX_ARGUMENT_CHARS:
            raise ToolRefused(f"{name}: the arguments are too long")
        try:
            return ARGUMENTS[name].model_validate_json(call.arguments or "{}")
        except ValidationError as error:
            problems = [
                f"{'.'.join(str(part) for part in one['loc']) or 'arguments'}: {one['msg']}"
                for one in error.errors(include_url=False, include_input=False)[:5]
            ]
            raise ToolRefused(f"{name}: {'; '.join(problems)}") from None

    async def _carried_out(self, asked: Arguments) -> ToolResult:
        match asked:
            case ReadFile():
                limit = self._policy.max_read_bytes
                return ToolResult(await asyncio.to_thread(read_lines, self._files, asked, max_bytes=limit))
            case ListDir():
                return ToolResult(await asyncio.to_thread(list_entries, self._files, asked))
            case ApplyPatch(input=text):
                return ToolResult(await asyncio.to_thread(apply_patch, self._files, text))
            case Exec():
                return await self._executed(asked)
            case _:
                raise AssertionError(type(asked).__name__)

    async def _executed(self, asked: Exec) -> ToolResult:
        limits = self._policy.limits
        wall_s = min(asked.timeout_s or limits.wall_s, limits.max_wall_s)
        parts = self._files.parts(asked.workdir)
        with self._files.folder(asked.workdir):
            cwd = self._files.root.joinpath(*parts)
        argv = [SHELL, "-c", asked.command] if isinstance(asked.command, str) else asked.command
        executed = await execute(
            await self._sandboxed(argv, cwd),
            # Inside the sandbox bwrap enters the folder, where a link that was put there meanwhile leads nowhere new.
            cwd=Path("/") if self._policy.sandbox != "danger-full-access" else cwd,
            env=self._env,
            wall_s=wall_s,
            limits=limits,
        )
        text, success = told(executed, wall_s)
        return ToolResult(text, success)

    async def _sandboxed(self, argv: Sequence[str], cwd: Path) -> Sequence[str]:
        sandbox = self._policy.sandbox
        if sandbox == "danger-full-access":
            return argv
        if self._bubblewrap is None:
            self._bubblewrap = await find_bubblewrap(self._env.get("PATH", os.defpath))
        if isinstance(self._bubblewrap, str):
            raise ToolRefused(f"commands can't be run: sandbox {sandbox} can't be had here ({self._bubblewrap})")
        return self._bubblewrap.command(
            argv,
            root=self._files.root,
            cwd=cwd,
            writable=sandbox == "workspace-write",
            hidden=self._policy.hidden,
        )


def tool_runner(
    workspace: str,
    settings: Settings,
    *,
    sandbox: ToolSandbox = "workspace-write",
    allowed: Collection[ToolName] = TOOL_NAMES,
    redactor: Redactor | None = None,
) -> ToolRunner:
    """The tools for a workspace, as this process's settings allow. Blocks for a look at the disk.

    Raises Forbidden and InvalidRequest (there is no such folder), which name the field.
    """
    if sandbox == "danger-full-access" and not settings.allow_danger:
        raise Forbidden(
            "sandbox: danger-full-access lets the model change anything on this machine; allowed only where Cody was "
            "started with --allow-danger",
            details={"field": "sandbox"},
        )
    if not os.path.isabs(workspace) or not is_inside(workspace, settings.workspace_roots):
        roots = ", ".join(str(root) for root in settings.workspace_roots)
        raise Forbidden(
            f"workingDir is not the absolute path of a folder that Cody may work in here ({roots or 'anywhere'}): start "
            "it with --workspace-root DIR (or CODY_WORKSPACE_ROOTS) for others",
            details={"field": "workingDir"},
        )
    if not os.path.isdir(workspace):
        raise InvalidRequest(f"workingDir: there is no folder {workspace}", details={"field": "workingDir"})
    policy = ToolPolicy(Path(workspace), sandbox, frozenset(allowed), hidden=(settings.state_dir,))
    return ToolRunner(policy, env=tool_environment(agent_environment()), redactor=redactor)


def tool_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What commands get of the process's environment. Pure."""
    return {
        name: value
        for name, value in inherited.items()
        if (name in _INHERITED or name.startswith("LC_")) and not looks_secret(name)
    }
