"""What counts against the idle limit: work does, the agent's complaint that it can't reach its model does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cody.contracts.run_config import RunConfig
from cody.redaction import Redactor
from harness.agents.base import TurnRequest
from harness.agents.codex_reader import CodexReader
from harness.turn_log import TurnLog
from harness.turn_output import TurnOutput

RETRY = b'{"type":"error","message":"Reconnecting... waiting for network"}\n'
WARNING = b'{"type":"error","message":"something else"}\n'
STEP = b'{"type":"item.started","item":{"id":"i","type":"reasoning","text":"so"}}\n'


@pytest.mark.parametrize(
    ("stdout", "stderr", "signs"),
    [
        (RETRY, b"", 0),
        (RETRY * 3, b"", 0),
        (b"", b"ERROR: no network\n", 0),
        (STEP, b"", 1),
        (RETRY + STEP + STEP, b"", 2),
        (WARNING, b"", 1),
        (STEP[:20], b"", 1),
    ],
)
async def test_signs_of_life(tmp_path: Path, stdout: bytes, stderr: bytes, signs: int) -> None:
    request = TurnRequest(
        run_id="r",
        turn=1,
        config=RunConfig(working_dir="/w"),
        prompt=tmp_path / "prompt.md",
        base_env={},
        resume_thread=None,
        resume_usage=None,
    )
    seen: list[float] = []
    loop = asyncio.get_running_loop()
    output = TurnOutput(
        CodexReader(request, roots=["/w"]),
        TurnLog(tmp_path / "output.log"),
        lambda body: None,
        lambda: seen.append(loop.time()),
        Redactor([]),
    )
    output.begin()
    if stdout:
        output.stdout(stdout)
    if stderr:
        output.stderr(stderr)
    assert len(seen) == signs
    output.finish()
