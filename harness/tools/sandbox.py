"""The sandbox of `exec`: bubblewrap's command line, and whether bubblewrap works on this machine.

Inside: the whole file system read-only, the workspace writable or not, an empty /tmp and /run, no network, no process
but its own, no terminal. `.git` of the workspace stays read-only: its hooks and settings are run by others, outside.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.agents.codex_binary import bundled_codex
from harness.probe import run_probe

PROBE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """A bwrap that was seen to work here."""

    program: Path

    def command(
        self, argv: Sequence[str], *, root: Path, cwd: Path, writable: bool, hidden: Sequence[Path] = ()
    ) -> tuple[str, ...]:
        """`argv` inside the sandbox. `hidden` folders are empty there (where they exist, and are not the workspace)."""
        return (str(self.program), *_mounts(root, writable, hidden), "--chdir", str(cwd), "--", *argv)


async def find_bubblewrap(path: str) -> Bubblewrap | str:
    """One that works: codex's own, else `bwrap` of `path` (as PATH). A text says why there is none."""
    if sys.platform != "linux":
        return "there is no sandbox for commands on this system"
    return await working_bubblewrap(_candidates(path))


async def working_bubblewrap(programs: Sequence[Path]) -> Bubblewrap | str:
    """The first of these that can make a sandbox, else why none can."""
    reasons: list[str] = []
    for program in programs:
        test = [str(program), *_mounts(Path("/"), False, ()), "--", "/bin/sh", "-c", "exit 0"]
        result = await asyncio.to_thread(run_probe, test, timeout_s=PROBE_TIMEOUT_S, env={})
        if result.ok:
            return Bubblewrap(program)
        reasons.append(f"{program}: {result.said}")
    return "; ".join(reasons) or "bubblewrap was not found: install it, or `pip install 'cody[codex]'`, which has it"


def _candidates(path: str) -> list[Path]:
    codex = bundled_codex()
    bundled = [] if codex is None else [codex.parent.parent / "codex-resources" / "bwrap"]
    found = shutil.which("bwrap", path=path)
    return [*(one for one in bundled if os.access(one, os.X_OK)), *([] if found is None else [Path(found)])]


def _mounts(root: Path, writable: bool, hidden: Sequence[Path]) -> list[str]:
    options = ["--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/"]
    options += ["--dev", "/dev", "--proc", "/proc"]
    for emptied in ("/tmp", "/run"):  # noqa: S108  # /run holds the sockets of daemons that act for others
        options += ["--tmpfs", emptied] if Path(emptied).is_dir() else []
    real = [Path(os.path.realpath(folder)) for folder in hidden if folder.is_dir()]
    outside = [folder for folder in real if not folder.is_relative_to(root)]
    for folder in outside:
        if not root.is_relative_to(folder):
            options += ["--tmpfs", str(folder)]
    if root != Path("/"):
        options += ["--bind" if writable else "--ro-bind", str(root), str(root)]
    git = root / ".git"
    if writable and git.exists() and not git.is_symlink():
        options += ["--ro-bind", str(git), str(git)]
    for folder in real:
        if folder.is_relative_to(root) and folder != root:
            options += ["--tmpfs", str(folder)]
    return options
