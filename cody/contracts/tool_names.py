"""The tools that Cody itself carries out for a model, and what they may do. The standard library alone."""

from __future__ import annotations

from typing import Literal, get_args

ToolName = Literal["read_file", "list_dir", "apply_patch", "exec"]
TOOL_NAMES: tuple[ToolName, ...] = get_args(ToolName)
ToolSandbox = Literal["read-only", "workspace-write", "danger-full-access"]
"""`read-only`: nothing is written; `workspace-write`: in the workspace only; `danger-full-access`: no sandbox."""
