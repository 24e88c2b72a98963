"""Asking a program a question: its output, within a time.

Child processes belong in process.py and guard.py; this is an exception for programs that answer at once and end (`codex
--version`, `git init`): they are no agents, and a guard beside each would outweigh them. Not for the server: it blocks.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_OUTPUT = 64 * 1024
"""Characters kept of each stream: an answer is a few lines."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`exit_code` None: it could not be started, or took too long; `error` says which. Negative: the signal."""

    exit_code: int | None
    stdout: str = ""
    stderr: str = ""
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def said(self) -> str:
        """What went wrong, in the program's own last words."""
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return self.error or (lines[-1] if lines else f"exit {self.exit_code}")


def run_probe(
    argv: Sequence[str], *, timeout_s: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> ProbeResult:
    """Run the program with an empty stdin to its end; never raises. `env` replaces the environment.

    One that takes longer than `timeout_s` is killed with all that it started.
    """
    try:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return ProbeResult(None, error=f"{argv[0]}: {getattr(error, 'strerror', None) or error}")
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return ProbeResult(None, error=f"{argv[0]} did not end within {timeout_s:g} s")
    return ProbeResult(process.returncode, stdout[-MAX_OUTPUT:], stderr[-MAX_OUTPUT:])
