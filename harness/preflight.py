"""Whether an agent's program is one that Cody can drive, asked once for each version of the file."""

from __future__ import annotations

import asyncio
import os

from structlog import get_logger

from cody.errors import AgentUnavailable
from harness.agents.codex_binary import bundled_codex, check_version, parse_version
from harness.launch import Launch
from harness.probe import run_probe

log = get_logger()

PROBE_TIMEOUT_S = 10.0

_checked: dict[tuple[str, int, int], None] = {}


async def check_codex(launch: Launch) -> None:
    """Raise AgentUnavailable when this codex is too old to be driven, or does not even tell its version.

    The wheel's own binary is not asked: its version is pinned with Cody's.
    """
    binary = launch.argv[0]
    bundled = bundled_codex()
    if bundled is not None and binary == str(bundled):
        return
    try:
        found = os.stat(binary)
    except OSError as error:
        raise AgentUnavailable(f"codex at {binary} can't be looked at: {error.strerror}") from error
    identity = (binary, found.st_mtime_ns, found.st_size)
    if identity in _checked:
        return
    answer = await asyncio.to_thread(
        run_probe, [binary, "--version"], timeout_s=PROBE_TIMEOUT_S, cwd=launch.cwd, env=dict(launch.env)
    )
    if answer.ok and parse_version(answer.stdout) is not None:
        check_version(answer.stdout)
    else:
        # A wrapper may not know the option: the turn itself will tell, with its own last words.
        log.warning("codex.version_unknown", binary=binary, said=answer.said[:300])
    _checked[identity] = None
