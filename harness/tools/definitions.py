"""What the model is told of each tool, and what it may send: JSON Schemas for providers, models for Cody's own check."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cody.contracts.tool_names import TOOL_NAMES, ToolName
from cody.pipeline.model_request import Tool

WRITING_TOOLS: frozenset[ToolName] = frozenset({"apply_patch"})
"""Not offered in a read-only sandbox; `exec` is, since its sandbox keeps it from writing."""

MAX_ARGUMENT_CHARS = 1 << 20
MAX_PATH_CHARS = 4096

Path = Annotated[str, Field(min_length=1, max_length=MAX_PATH_CHARS)]


class Arguments(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @field_validator("*")
    @classmethod
    def _no_nul(cls, value: object) -> object:
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ValueError("contains a NUL character")
        return value


class ReadFile(Arguments):
    path: Path
    offset: Annotated[int, Field(ge=1)] = 1
    """The first line, counted from 1."""
    limit: Annotated[int, Field(ge=1, le=10_000)] = 2_000


class ListDir(Arguments):
    path: Path = "."


class ApplyPatch(Arguments):
    input: Annotated[str, Field(min_length=1, max_length=MAX_ARGUMENT_CHARS)]


class Exec(Arguments):
    command: (
        Annotated[str, Field(min_length=1, max_length=100_000)]
        | Annotated[list[Annotated[str, Field(max_length=100_000)]], Field(min_length=1, max_length=1_000)]
    )
    """A text is run by `/bin/bash -c`, a list as it is."""
    workdir: Path = "."
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] | None = None


ARGUMENTS: dict[ToolName, type[Arguments]] = {
    "read_file": ReadFile,
    "list_dir": ListDir,
    "apply_patch": ApplyPatch,
    "exec": Exec,
}

_PATH = "Relative to the workspace. Symbolic links and `..` are refused."
_PATCH = """Change files of the workspace. `input` is a patch:
*** Begin Patch
*** Add File: path        (each line of the new file begins with +)
*** Delete File: path
*** Update File: path
*** Move to: new path     (optional)
@@ a line that stands above the change (optional)
 context line
-removed line
+added line
*** End Patch
Nothing is changed unless all of the patch applies."""

DEFINITIONS: dict[ToolName, Tool] = {
    "read_file": Tool(
        name="read_file",
        description="Read lines of a text file of the workspace.",
        parameters={
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": _PATH},
                "offset": {"type": "integer", "minimum": 1, "description": "First line, from 1 (default 1)."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 10_000, "description": "Lines (default 2000)."},
            },
            "required": ["path"],
            "additionalProperties": False,
        },
    ),
    "list_dir": Tool(
        name="list_dir",
        description="List a folder of the workspace: folders end with /, symbolic links with @.",
        parameters={
            "type": "object",
            "properties": {"path": {"type": "string", "description": f"{_PATH} Default: the workspace."}},
            "additionalProperties": False,
        },
    ),
    "apply_patch": Tool(
        name="apply_patch",
        description=_PATCH,
        parameters={
            "type": "object",
            "properties": {"input": {"type": "string", "description": "The whole patch."}},
            "required": ["input"],
            "additionalProperties": False,
        },
    ),
    "exec": Tool(
        name="exec",
        description="Run a command in the workspace and get its exit code and output. No network, no input.",
        parameters={
            "type": "object",
            "properties": {
                "command": {
                    "anyOf": [
                        {"type": "string", "description": "Run by /bin/bash -c."},
                        {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "argv"},
                    ]
                },
                "workdir": {"type": "string", "description": f"{_PATH} Default: the workspace."},
                "timeout_s": {"type": "number", "exclusiveMinimum": 0, "description": "Seconds until it is ended."},
            },
            "required": ["command"],
            "additionalProperties": False,
        },
    ),
}


def definitions(allowed: Collection[ToolName]) -> tuple[Tool, ...]:
    """What a request offers to the model, in a fixed order."""
    return tuple(DEFINITIONS[name] for name in TOOL_NAMES if name in allowed)
