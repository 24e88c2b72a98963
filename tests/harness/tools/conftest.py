"""A workspace and its tools."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cody.contracts.responses import FunctionCall
from cody.pipeline.providers.tool_loop import ToolResult
from harness.tools.execution import ExecLimits
from harness.tools.runner import ToolPolicy, ToolRunner

Use = Callable[..., Awaitable[ToolResult]]
LIMITS = ExecLimits(wall_s=30.0, max_wall_s=60.0, grace_s=0.3, max_output_bytes=4_096, max_flood_bytes=2 << 20)


def call(name: str, arguments: str) -> FunctionCall:
    return FunctionCall(id="fc_1", name=name, arguments=arguments, call_id="call_1")


def user_of(runner: ToolRunner) -> Use:
    """`await use("exec", command="ls")`."""

    async def use(tool: str, **arguments: Any) -> ToolResult:
        return await runner.run(call(tool, json.dumps(arguments)))

    return use


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "repo"
    made.mkdir()
    (made / "notes.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    return made


def runner_of(workspace: Path, **policy: Any) -> ToolRunner:
    return ToolRunner(ToolPolicy(workspace, **{"limits": LIMITS, **policy}), env={"PATH": os.environ["PATH"]})


@pytest.fixture
def use(workspace: Path) -> Use:
    return user_of(runner_of(workspace))
