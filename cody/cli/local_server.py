"""A server for the runs of this user, started when none answers.

Child processes belong in `harness/process.py`; this one is an exception, because `cody` cannot import `harness`, and
the server is no child for long: it goes on when the command has ended, and ends by itself when it is idle.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from rich.console import Console

from cody.cli.known_roots import KnownRoots, keep_roots, read_roots, usable
from cody.cli.processes import module_command, module_environment
from cody.client import ServerUnreachable, find_server
from cody.errors import ConfigurationError
from cody.settings import DEFAULT_PORT, Settings, environment

IDLE_EXIT_S = 300
LOG_NAME = "server.log"
START_DEADLINE_S = 60.0
"""A start takes about a second; the rest is for an append-only file of hours that is loaded first."""
LOCK_POLL_S = 0.05
MAX_LOG_BYTES = 4 * 1024 * 1024
TAIL_BYTES = 4096
TAIL_LINES = 15


async def ensure_server(settings: Settings, console: Console, working_dir: Path) -> str:
    """The URL of a server that answers: the one that runs, or a new one, which this waits for.

    A new one works in all of the user's home folder when `working_dir` is inside, else in `working_dir`; and wherever
    the ones before it did.

    Raises ServerUnreachable: with the end of the new server's log when it could not be started, and when CODY_URL names
    a server that does not answer. `console` gets a line while there is something to wait for.
    """
    if (url := await find_server(settings)) is not None:
        return url
    if settings.url is not None:
        raise ServerUnreachable(
            f"no Cody server answers at {settings.url}: start it, or unset CODY_URL to use one on this machine"
        )
    roots = [*read_roots(settings.state_dir).roots, workspace_root(working_dir, Path.home())]
    return await _find_or_start(settings, roots, console)


async def wake_server(settings: Settings) -> str:
    """The URL of a server for runs that there are already: it is started again, as `cody run` had done, when it has ended.

    Raises ServerUnreachable where that would start what nobody asked for: there is no run, the server was another kind,
    or it was stopped in the midst of runs.
    """
    if settings.url is not None:
        raise ServerUnreachable(
            f"no Cody server answers at {settings.url}: start it there, or correct or unset CODY_URL (--url)"
        )
    folder = settings.state_dir
    if not (folder / "redis").is_dir() and not (folder / "archive.sqlite3").is_file():
        raise ServerUnreachable(f"no runs yet, and no server: `cody run` starts both. The state folder is {folder}")
    known = read_roots(folder)
    if known.asleep == "stopped":
        raise ServerUnreachable(
            f"the server of {folder} was stopped while it had runs to work on. It goes on with them once `cody run` or "
            "`cody serve` starts it again"
        )
    if known.asleep == "by hand" or not (known.roots or settings.workspace_roots):
        raise ServerUnreachable(
            f"no Cody server answers for {folder}, and it was started by hand the last time: start it again with "
            "`cody serve`, or just `cody run`"
        )
    return await _find_or_start(settings, known.roots, None)


async def _find_or_start(settings: Settings, roots: Sequence[Path], console: Console | None) -> str:
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with _only_one(settings.state_dir / "server.start"):
            # Another command may have started it while this one waited.
            return await find_server(settings) or await _start(settings, roots, console)
    except OSError as error:
        raise ConfigurationError(
            f"the state folder {settings.state_dir} can't be used ({error.strerror or error}): choose another with "
            "CODY_STATE_DIR (--state-dir), or make it a folder that you may write to"
        ) from error


@asynccontextmanager
async def _only_one(path: Path) -> AsyncIterator[None]:
    """Two commands at once must not start two servers on one state folder: the second would fail."""
    with path.open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_S)
        yield


async def _start(settings: Settings, roots: Sequence[Path], console: Console | None) -> str:
    log_path = settings.state_dir / LOG_NAME
    if console is not None:
        console.print(f"no server is running: starting one (log: {log_path})", style="dim", soft_wrap=True)
    flags = ["--port", str(_port(settings)), "--idle-exit", str(IDLE_EXIT_S)]
    kept = usable(roots)
    if not settings.workspace_roots:
        # Without any the server would take its own current folder: the state folder.
        flags += [f"--workspace-root={root}" for root in kept]
    started = await start_server(settings, *flags)
    keep_roots(settings.state_dir, KnownRoots(pid=started.process.pid, roots=kept))
    return started.url


def workspace_root(working_dir: Path, home: Path) -> Path:
    """Where a server may work that `cody run` starts: later runs of the same user should find it good enough too."""
    real, real_home = Path(os.path.realpath(working_dir)), Path(os.path.realpath(home))
    return real_home if real.is_relative_to(real_home) and real_home != Path("/") else real


@dataclass(frozen=True, slots=True)
class StartedServer:
    """A server that is ready. It ends by itself as its flags say, or by a SIGTERM to `process`."""

    url: str
    process: subprocess.Popen[bytes]


async def start_server(settings: Settings, *flags: str, env: Mapping[str, str] | None = None) -> StartedServer:
    """A new server on the state folder, once it is ready; `env` replaces the environment.

    Raises ServerUnreachable, with the end of its log, when it does not come up.
    """
    log_path = settings.state_dir / LOG_NAME
    with _open_log(log_path) as log:
        log_start = log.seek(0, os.SEEK_END)
        process = _spawn(settings, flags, log, env)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            line = await _first_line(process.stdout)
    except TimeoutError:
        process.terminate()
        line = f"not ready after {START_DEADLINE_S:g} s"
    except BaseException:
        # Ctrl-C while waiting: nobody will use it, and its state folder is to be free for the next one.
        process.terminate()
        raise
    url = next((word for word in line.split() if word.startswith(("http://", "https://"))), None)
    if url is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        tail = log_tail(log_path, since=log_start)
        raise ServerUnreachable(f"the server could not be started ({line or 'it ended'}). {log_path} ends:\n{tail}")
    return StartedServer(url.rstrip("/"), process)


def _spawn(
    settings: Settings, flags: Sequence[str], log: BinaryIO, env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*module_command("server"), "--host", settings.host, "--state-dir", str(settings.state_dir), *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        env=module_environment(environment() if env is None else env),
        # It outlives this command and its terminal: no Ctrl-C and no hang-up of theirs, and no folder that is in use.
        start_new_session=True,
        cwd=settings.state_dir,
    )


def _port(settings: Settings) -> int:
    """The port of the settings; any free one when that is the default and something else has taken it.

    Raises ServerUnreachable for a chosen one that is taken.
    """
    if port_is_free(settings):
        return settings.port
    if settings.port != DEFAULT_PORT:
        raise ServerUnreachable(
            f"port {settings.port} on {settings.host} is taken by another program, so no server can be started there: "
            "stop that program, or choose another port with CODY_PORT (0: any free one)"
        )
    return 0


def port_is_free(settings: Settings) -> bool:
    """Whether a server could listen where the settings say."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            # Anything else (a host that is no address) the server itself tells better.
            return error.errno != errno.EADDRINUSE
    return True


async def _first_line(stdout: IO[bytes]) -> str:
    """The first line of the server's stdout; empty when it ended without one."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stdout)
    try:
        return (await reader.readline()).decode(errors="replace").strip()
    finally:
        transport.close()


def _open_log(path: Path) -> BinaryIO:
    """The log, for appending; what an earlier server left is kept once, when it has grown large."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "ab")


def log_tail(path: Path, *, since: int = 0) -> str:
    """The last lines of a log, none from before the offset `since`."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(since, size - TAIL_BYTES))
            lines = log.read(TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError as error:
        return f"({error})"
    return "\n".join(lines[-TAIL_LINES:]) or "(it is empty)"
