"""Where the native codex binary is, and whether it is new enough."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog

from cody.errors import AgentUnavailable

log = structlog.get_logger(__name__)

MIN_VERSION = (0, 163, 0)
"""The oldest version whose options, lines and exit codes were checked."""

INSTALL_HINT = "install it with `pip install 'cody[codex]'`, put `codex` on PATH, or name it with CODY_CODEX_BIN"

_VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)")
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}


def find_codex(explicit: str | None, *, bundled: Path | None, path: str) -> Path:
    """The binary to start: the one that was named, else the wheel's, else `codex` of `path` (as PATH).

    npm's `codex` is a script that may start the native binary as its child, which then survives a SIGKILL to the
    script: the native binary inside its package is given instead. Raises AgentUnavailable, with what mends it.
    """
    if explicit:
        named = shutil.which(explicit, path=path) if "/" not in explicit else os.path.abspath(explicit)
        if named is None or not _executable(Path(named)):
            raise AgentUnavailable(
                f"CODY_CODEX_BIN names {explicit!r}, which is not an executable file: correct or unset it"
            )
        return _native(Path(named))
    if bundled is not None and _executable(bundled):
        return bundled
    found = shutil.which("codex", path=path)
    if found is None:
        raise AgentUnavailable(f"codex was not found: {INSTALL_HINT}")
    return _native(Path(os.path.abspath(found)))


def bundled_codex() -> Path | None:
    """The binary of the wheel `openai-codex-cli-bin`; None when the wheel is not installed or not whole."""
    try:
        return Path(importlib.import_module("codex_cli_bin").bundled_codex_path())
    except ImportError:
        return None
    except (AttributeError, OSError) as error:
        log.warning("codex.wheel_unusable", error=str(error))
        return None


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version in what `codex --version` prints (`codex-cli 0.163.0`); None when there is none."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def check_version(text: str) -> None:
    """Raise AgentUnavailable when `text`, what `codex --version` printed, names no version or one that is too old."""
    version = parse_version(text)
    least = ".".join(map(str, MIN_VERSION))
    if version is None:
        raise AgentUnavailable(
            f"`codex --version` printed {text.strip()[:200]!r}, no version: is it codex? Or {INSTALL_HINT}"
        )
    if version < MIN_VERSION:
        raise AgentUnavailable(
            f"codex {'.'.join(map(str, version))} is too old, {least} or newer is needed: {INSTALL_HINT}"
        )


def _native(path: Path) -> Path:
    """The binary itself; of a script, the native binary of the npm package that it belongs to."""
    with path.open("rb") as file:
        if file.read(2) != b"#!":
            return path
    package = path.resolve().parent.parent
    for candidate in _vendored(package):
        if _executable(candidate):
            return candidate
    log.warning("codex.native_binary_not_found", wrapper=str(path), risk="a killed wrapper may leave codex running")
    return path


def _vendored(package: Path) -> Iterator[Path]:
    """Where npm's @openai/codex keeps the binary: a package for each platform (0.169.0), or itself (older ones)."""
    machine = _MACHINES.get(platform.machine().lower(), "unknown")
    system = "apple-darwin" if sys.platform == "darwin" else "unknown-linux"
    homes = [*sorted(package.parent.glob("codex-*")), *sorted(package.glob("node_modules/@openai/codex-*")), package]
    for home in homes:
        for triple in sorted(home.glob(f"vendor/{machine}-{system}*")):
            yield triple / "bin" / "codex"
            yield triple / "codex" / "codex"


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
