"""The real `cody` as a process: in pipes, and on a terminal."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-P", "-m", "cody.cli"]
DEADLINE_S = 100.0
OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
BEHIND = "\0behind all that it wrote\0"


def environment(state_dir: Path, **extra: str) -> dict[str, str]:
    """What a command gets: no setting of this machine, and no server but the one of this state folder."""
    dropped = ("CODY_", "REDIS_URL", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    own = {"CODY_STATE_DIR": str(state_dir), "CODY_PORT": "0", "PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color"}
    return {**kept, **own, **extra}


def read_until(stream: IO[str] | None, wanted: str) -> str:
    """Lines up to the first that has `wanted` in it; fails when the stream ends before."""
    assert stream is not None
    read = ""
    for line in stream:
        read += line
        if wanted in line:
            return read
    raise AssertionError(f"{wanted!r} never came:\n{read}")


@dataclass
class CommandLine:
    """`cody` in one folder, with one state folder."""

    state_dir: Path
    folder: Path

    def __call__(self, *arguments: str, code: int | None = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `code` is the exit code that it must have (None: any)."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=environment(self.state_dir, **extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def raw(self, *arguments: str) -> bytes:
        """The bytes that a command prints."""
        env = environment(self.state_dir)
        return subprocess.run(
            [*COMMAND, *arguments], cwd=self.folder, env=env, capture_output=True, timeout=DEADLINE_S, check=True
        ).stdout

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """Start a command whose output is read by the caller."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=environment(self.state_dir, **extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def terminal(self, *arguments: str, columns: int = 120, **extra: str) -> Terminal:
        """Start a command on a terminal of its own."""
        return Terminal([*COMMAND, *arguments], self.folder, environment(self.state_dir, **extra), columns)

    def server_pid(self) -> int | None:
        with suppress(OSError, ValueError):
            return int(json.loads((self.state_dir / "server.json").read_text())["pid"])
        return None

    def end_server(self) -> None:
        """End the server that a command has started, and see it gone."""
        pid = self.server_pid()
        if pid is None:
            return
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.terminate()
            process.wait(DEADLINE_S)


@dataclass
class Terminal:
    """A process on a pseudo-terminal; all that it wrote is in `text`. Use it as a context: it is ended then."""

    command: list[str]
    folder: Path
    env: dict[str, str]
    columns: int = 120
    text: str = field(default="", init=False)

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self.columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", OWN_TERMINAL, *self.command],
            cwd=self.folder,
            env=self.env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.mode_before = termios.tcgetattr(slave)
        self._slave = slave
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    @property
    def mode(self) -> list[Any]:
        """How the terminal is set now."""
        return termios.tcgetattr(self._slave)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, seen: str | Callable[[str], bool], *, after: int = 0) -> int:
        """Read until `seen` stands in the text behind position `after`; the position behind all that was read."""
        give_up_at = time.monotonic() + DEADLINE_S
        while not (seen in self.text[after:] if isinstance(seen, str) else seen(self.text[after:])):
            assert time.monotonic() < give_up_at, f"not seen: {seen!r}\n{self.text}"
            if not self._read() and self.process.poll() is not None:
                self._read_rest()
                found = seen in self.text[after:] if isinstance(seen, str) else seen(self.text[after:])
                assert found, f"it ended without {seen!r}\n{self.text}"
        return len(self.text)

    def wait(self) -> int:
        """The exit code, once it has ended; all of its text is read by then."""
        give_up_at = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < give_up_at, f"it does not end\n{self.text}"
            self._read()
        self._read_rest()
        return self.process.returncode

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 0.05)
        if not ready:
            return False
        self.text += self._decoder.decode(os.read(self._master, 65_536))
        return True

    def _read_rest(self) -> None:
        """All that the process wrote before it ended: the kernel hands it on a while later, and in order."""
        os.write(self._slave, BEHIND.encode())
        give_up_at = time.monotonic() + DEADLINE_S
        while BEHIND not in self.text:
            assert time.monotonic() < give_up_at, f"its last words do not come\n{self.text}"
            self._read()
        self.text = self.text.replace(BEHIND, "")
