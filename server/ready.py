"""Telling the world that the server is ready: one line on stdout, and a file for the CLI of the same user."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import orjson
from structlog import get_logger

from cody import __version__
from cody.wall_clock import now_text

log = get_logger()


def say_ready(url: str) -> None:
    """The one line that this program writes on stdout."""
    try:
        print(url, flush=True)
    except OSError as error:  # whoever started us does not listen any more: no reason not to serve
        log.warning("server.ready_line_lost", error=str(error))
        # Else the interpreter tries once more at exit, and fails with code 120.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


@dataclass(frozen=True, slots=True)
class ServerFile:
    """The file that says where the server of this state folder is: `{"url", "pid", "version", "startedAt", "proofKey"}`."""

    path: Path

    def write(self, url: str, proof_key: str) -> None:
        """In one step, so that a reader never sees half of it; for this user only, as the key wants it. Raises OSError."""
        content = {
            "url": url,
            "pid": os.getpid(),
            "version": __version__,
            "startedAt": now_text(),
            "proofKey": proof_key,
        }
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            file.write(orjson.dumps(content) + b"\n")
        beside.replace(self.path)

    def remove(self) -> None:
        """Unless it is another server's by now."""
        with contextlib.suppress(OSError, orjson.JSONDecodeError):
            found = orjson.loads(self.path.read_bytes())
            if isinstance(found, dict) and found.get("pid") == os.getpid():
                self.path.unlink()
