"""A real Redis server of Cody's own, for machines where none runs.

Valkey (or Redis 7.0 and later) on a unix socket that only this user can open, with an append-only file in
`<state_dir>/redis/`. It ends when Cody ends, also when Cody is killed.

Child processes belong in `harness/process.py`; this launcher (with the `--version` of `server_binary`) is the one
exception, because `cody` cannot import `harness`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote

import structlog

from cody.errors import StoreUnavailable
from cody.store import server_folder
from cody.store.server_binary import ServerBinary, find_server_binary

__all__ = ["EmbeddedServer", "ServerBinary", "find_server_binary", "server_arguments"]

log = structlog.get_logger(__name__)

Fsync = Literal["always", "everysec", "no"]

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 10.0
PING_DEADLINE_S = 1.0
FIRST_POLL_S = 0.002
LAST_POLL_S = 0.05

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "daemonize": "no",
        "port": "0",
        "unixsocketperm": "700",
        "appendonly": "yes",
        # A plain base file: the RDB preamble of a newer server is not readable by another one found on PATH later.
        "aof-use-rdb-preamble": "no",
        # After kill -9 or power loss the last command may be cut: load what is whole instead of refusing to start.
        "aof-load-truncated": "yes",
        # The append-only file is the record; snapshots would only fork and write everything once more.
        "save": "",
        "maxmemory-policy": "noeviction",
    }
)


def server_arguments(binary: Path, *, socket_path: Path, log_path: Path, appendfsync: Fsync) -> list[str]:
    """The command line of the server; its working directory is the data folder."""
    settings = {**SETTINGS, "unixsocket": str(socket_path), "logfile": str(log_path), "appendfsync": appendfsync}
    return [str(binary), *(word for name, value in settings.items() for word in (f"--{name}", value))]


class EmbeddedServer:
    """One server process on one data folder. `start` and `stop` may alternate; also `start` after it died by itself."""

    def __init__(
        self,
        binary: ServerBinary,
        state_dir: Path,
        *,
        appendfsync: Fsync = "everysec",
        runtime_dir: Path | None = None,
        start_deadline_s: float = START_DEADLINE_S,
        stop_deadline_s: float = STOP_DEADLINE_S,
    ) -> None:
        """`runtime_dir`: where the socket goes when `state_dir` is too long for one (default: the temporary folder).

        Starts nothing. Raises ConfigurationError when no place for the socket is short enough.
        """
        self.binary = binary
        self.folder = state_dir.resolve() / "redis"
        self.log_path = self.folder / "server.log"
        self.socket_path = server_folder.place_socket(self.folder, runtime_dir or Path(tempfile.gettempdir()))
        self._appendfsync: Fsync = appendfsync
        self._start_deadline_s = start_deadline_s
        self._stop_deadline_s = stop_deadline_s
        self._lock: int | None = None
        self._socket_claimed = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for redis-py: `unix:///path`, percent-encoded."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def version(self) -> str:
        return self.binary.version

    @property
    def pid(self) -> int:
        """The process id of the server. Raises RuntimeError before `start` and after `stop`."""
        if self._process is None:
            raise RuntimeError(f"the Redis server of {self.folder} is not started")
        return self._process.pid

    async def start(self) -> None:
        """Returns when the server answers PING, its append-only file loaded.

        Only from the main thread: the server gets its death signal when the *thread* that spawned it ends.
        Raises StoreUnavailable when the folder is in use, and with the last lines of the server's log when it exits or
        is not ready in time; ConfigurationError when the folder cannot be used. Nothing is left running then.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("an embedded Redis server must be started from the main thread: it ends with its thread")
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError(f"the Redis server of {self.folder} is started already, as process {self._process.pid}")
        self._release()
        server_folder.make_private_folder(self.folder)
        self._lock = await server_folder.lock_folder(self.folder, orphan_deadline_s=self._stop_deadline_s)
        try:
            server_folder.claim_socket(self.socket_path, self.folder)
            self._socket_claimed = True
            log_start = server_folder.bound_log(self.log_path)
            self._process = process = self._spawn(self._lock)
            server_folder.record_holder(self._lock, server_pid=process.pid)
            await self._wait_until_ready(process, log_start)
        except BaseException:
            await self.stop()
            raise
        log.info("store.server_started", pid=process.pid, version=self.version, folder=str(self.folder))

    async def stop(self) -> None:
        """The server has written its append-only file and is gone; killed when SIGTERM took too long. Repeatable."""
        process = self._process
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(self._stop_deadline_s):
                    exit_code = await _exit_code(process)
            except TimeoutError:
                process.kill()
                exit_code = await _exit_code(process)
                log.warning("store.server_killed", pid=process.pid, waited_s=self._stop_deadline_s)
            log.info("store.server_stopped", pid=process.pid, exit_code=exit_code)
        self._release()

    async def wait_exit(self) -> int:
        """The exit code (negative: the signal), once the server has ended, for whatever reason."""
        if self._process is None:
            raise RuntimeError(f"the Redis server of {self.folder} is not started")
        return await _exit_code(self._process)

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        command = server_arguments(
            self.binary.path, socket_path=self.socket_path, log_path=self.log_path, appendfsync=self._appendfsync
        )
        # What the server says before it has opened its log (a bad option, say) goes to the same file.
        with self.log_path.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(DIE_WITH_PARENT), str(os.getpid()), *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # The server keeps the folder's lock for as long as it lives, even if Cody is gone.
                pass_fds=(lock,),
                # Not in the terminal's foreground group: Ctrl-C would end it before Cody has written its last events.
                start_new_session=True,
            )

    async def _wait_until_ready(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._start_deadline_s
        pause_s = FIRST_POLL_S
        while True:
            if (exit_code := process.poll()) is not None:
                raise self._start_failed(f"exited with {exit_code} at its start", log_start)
            answer = await _ping(self.socket_path)
            if answer == b"+PONG":
                return
            if loop.time() >= give_up_at:
                said = answer.decode(errors="replace") or "nothing"
                raise self._start_failed(
                    f"was not ready after {self._start_deadline_s:g} s (it said {said})", log_start
                )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LAST_POLL_S)

    def _start_failed(self, what: str, log_start: int) -> StoreUnavailable:
        tail = server_folder.log_tail(self.log_path, since=log_start)
        return StoreUnavailable(
            f"The embedded Redis server {self.binary.path} on {self.folder} {what}. "
            f"Its log {self.log_path} ends:\n{tail}",
            details={"folder": str(self.folder)},
        )

    def _release(self) -> None:
        self._process = None
        if self._socket_claimed:
            # Never before the claim: what is in the way then is someone else's, or reached through their link.
            server_folder.release_socket(self.socket_path, self.folder)
            self._socket_claimed = False
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


async def _ping(socket_path: Path) -> bytes:
    """The first line of the answer to PING (`-LOADING ...` while the file is being loaded); empty without one."""
    try:
        async with asyncio.timeout(PING_DEADLINE_S):
            reader, writer = await asyncio.open_unix_connection(socket_path)
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).rstrip()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


async def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """The exit code, once the process has ended."""
    if sys.platform != "linux":
        while process.poll() is None:
            await asyncio.sleep(LAST_POLL_S)
        return process.wait()
    if process.poll() is None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(process.pid)
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
    return process.wait()
