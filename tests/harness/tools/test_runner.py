"""Calls that are none, what the settings allow, and a whole answer with tools over the wire."""

from __future__ import annotations

import json
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from cody.contracts.responses import FunctionCallOutput
from cody.contracts.stream_events import ItemDone
from cody.contracts.tool_names import TOOL_NAMES
from cody.errors import Forbidden, InvalidRequest
from cody.pipeline.model_request import ModelRequest
from cody.pipeline.providers.registry import open_provider
from cody.pipeline.providers.tool_loop import stream_with_tools
from cody.redaction import Redactor, Secret
from cody.settings import load_settings
from harness.tools.definitions import ARGUMENTS, DEFINITIONS
from harness.tools.runner import ToolPolicy, ToolRunner, tool_environment, tool_runner
from tests.harness.tools.conftest import LIMITS, call, runner_of
from tests.pipeline.events import START
from tests.pipeline.tool_calls import after_call, calling
from tests.pipeline.wire_server import WireServer


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rm_rf", "{}"),
        ("", "{}"),
        ("read_file", ""),
        ("read_file", "{"),
        ("read_file", "[]"),
        ("read_file", '{"path": 3}'),
        ("read_file", '{"path": "a\\u0000b"}'),
        ("read_file", '{"path": "x", "mode": "rw"}'),
        ("read_file", '{"path": "x", "offset": 0}'),
        ("read_file", '{"path": "' + "x/" * 5000 + '"}'),
        ("exec", '{"command": []}'),
        ("exec", '{"command": "true", "timeout_s": -1}'),
        ("exec", '{"command": "true", "timeout_s": NaN}'),
        ("exec", "[" * 100_000),
        ("apply_patch", '{"input": "' + "x" * 3_000_000 + '"}'),
    ],
)
async def test_a_call_that_is_none_is_answered(workspace: Path, name: str, arguments: str) -> None:
    result = await runner_of(workspace).run(call(name, arguments))
    assert not result.success
    assert 0 < len(result.output) < 2_000


async def test_a_tool_that_is_not_allowed_is_unknown(workspace: Path) -> None:
    runner = runner_of(workspace, allowed=frozenset({"read_file"}))
    assert [tool.name for tool in runner.tools] == ["read_file"]
    assert "no tool 'exec'" in (await runner.run(call("exec", '{"command": "true"}'))).output


def test_the_schemas_name_what_the_models_take() -> None:
    for name in TOOL_NAMES:
        described = DEFINITIONS[name].parameters
        own = ARGUMENTS[name].model_json_schema()
        assert set(described["properties"]) == set(own["properties"])  # type: ignore[arg-type]
        assert set(described.get("required", [])) == set(own.get("required", []))  # type: ignore[arg-type]


def test_danger_needs_consent_and_the_workspace_a_root(workspace: Path, tmp_path: Path) -> None:
    strict = load_settings(state_dir=tmp_path / "state", workspace_roots=(workspace,), allow_danger=False)
    tool_runner(str(workspace), strict)
    with pytest.raises(InvalidRequest, match="no folder"):
        tool_runner(str(workspace / "notes.txt"), strict)
    with pytest.raises(Forbidden, match="allow-danger"):
        tool_runner(str(workspace), strict, sandbox="danger-full-access")
    for elsewhere in (str(tmp_path), "relative", str(workspace / ".." / "other")):
        with pytest.raises(Forbidden, match="workspace-root"):
            tool_runner(elsewhere, strict)
    tool_runner(str(workspace), strict.model_copy(update={"allow_danger": True}), sandbox="danger-full-access")


def test_commands_get_no_keys() -> None:
    given = {"PATH": "/bin", "OPENAI_API_KEY": "k", "HTTPS_PROXY": "http://u:p@h", "LC_ALL": "C", "LC_TOKEN": "x"}
    assert tool_environment(given) == {"PATH": "/bin", "LC_ALL": "C"}


async def test_secrets_are_taken_out_of_results(workspace: Path) -> None:
    (workspace / "env").write_text("KEY=hunter2-hunter2\n")
    redactor = Redactor([Secret("KEY", "hunter2-hunter2")])
    runner = ToolRunner(ToolPolicy(workspace, limits=LIMITS), env={"PATH": os.environ["PATH"]}, redactor=redactor)
    for asked in (call("read_file", '{"path": "env"}'), call("exec", '{"command": "cat env"}')):
        output = (await runner.run(asked)).output
        assert "hunter2" not in output
        assert "[redacted:KEY]" in output


async def test_a_model_runs_a_command_and_gets_its_output(workspace: Path) -> None:
    runner = runner_of(workspace)
    async with WireServer(
        calling("openai", "exec", command="cat notes.txt > copy; wc -l < copy"), after_call("openai")
    ) as wire:
        provider = await open_provider("openai", api_key="k" * 10, base_url=wire.url)
        request = ModelRequest(opening=START, prompt="How many lines?")
        async with aclosing(stream_with_tools(provider, request, runner)) as payloads:
            said = [payload async for payload in payloads]
        await provider.aclose()
    outputs = [p.final_item for p in said if isinstance(p, ItemDone) and isinstance(p.final_item, FunctionCallOutput)]
    assert [(item.output, item.success) for item in outputs] == [("exit code 0\n3\n", True)]
    assert (workspace / "copy").read_text() == (workspace / "notes.txt").read_text()
    assert [tool["name"] for tool in wire.requests[0].body["tools"]] == list(TOOL_NAMES)
    assert "exit code 0\\n3" in json.dumps(wire.requests[1].body["input"])
