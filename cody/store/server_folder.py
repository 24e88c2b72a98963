"""The private folder of an embedded Redis server: its lock, its socket's place, its log.

One server at a time may write an append-only file, and Redis itself does not check: two servers on one folder both
start and corrupt it. So the folder has a lock file, and the lock (flock) is inherited by the server: it is held until
*both* Cody and the server are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import stat
from pathlib import Path

import psutil

from cody.errors import ConfigurationError, StoreUnavailable

MAX_SOCKET_PATH_BYTES = 103
"""sun_path is 108 bytes on Linux and 104 on macOS, with the closing NUL."""

MAX_LOG_BYTES = 1024 * 1024
KEPT_LOG_BYTES = 64 * 1024
MAX_TAIL_BYTES = 4096

LOCK_POLL_S = 0.02


def make_private_folder(folder: Path) -> None:
    """Create `folder` (and its parent) for this user only, 0700. Raises ConfigurationError when it can't be."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"The folder {folder} cannot be made private to this user: {error}") from error


async def lock_folder(folder: Path, *, orphan_deadline_s: float) -> int:
    """The descriptor that holds the lock of `folder`; close it to let go.

    A holder whose Cody or whose server has died is on its way out (its server is flushing): that is waited for, up to
    `orphan_deadline_s`. A living one is an error at once: StoreUnavailable with the folder and the pids.
    """
    lock_path = folder / "lock"
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"The lock file {lock_path} cannot be opened: {error}") from error
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + orphan_deadline_s
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _read_holder(lock)
                if all(map(_is_alive, holder)) or loop.time() >= give_up_at:
                    raise _held(folder, holder) from None
                await asyncio.sleep(LOCK_POLL_S)
            else:
                record_holder(lock, server_pid=None)
                return lock
    except BaseException:
        os.close(lock)
        raise


def record_holder(lock: int, *, server_pid: int | None) -> None:
    """Write into the lock file who holds it, for the message that the next one gets."""
    pids = [os.getpid()] if server_pid is None else [os.getpid(), server_pid]
    os.ftruncate(lock, 0)
    os.pwrite(lock, " ".join(map(str, pids)).encode() + b"\n", 0)


def place_socket(folder: Path, runtime_dir: Path) -> Path:
    """Where the server of `folder` (absolute) listens: in it, or, when that path is too long, under `runtime_dir`.

    Deterministic, so that what a killed Cody left there is used again. Touches nothing.
    Raises ConfigurationError when `runtime_dir` is too long as well.
    """
    socket_path = folder / "redis.sock"
    if _fits(socket_path):
        return socket_path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    socket_path = runtime_dir.absolute() / f"cody-{os.geteuid()}-{digest}" / "redis.sock"
    if _fits(socket_path):
        return socket_path
    raise ConfigurationError(
        f"The paths of {folder} and {runtime_dir} are both too long for a socket (over {MAX_SOCKET_PATH_BYTES} bytes): "
        "choose a shorter --state-dir"
    )


def claim_socket(socket_path: Path, folder: Path) -> None:
    """Make `socket_path` ready to be bound: its runtime folder is there and ours, a dead server's socket is gone.

    Call with the lock of `folder` held. Raises StoreUnavailable when someone else made the runtime folder, or when
    something that is no socket is in the way.
    """
    if socket_path.parent != folder:
        _claim_runtime_folder(socket_path.parent)
    try:
        found = socket_path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StoreUnavailable(
            f"{socket_path} is not a socket: move it away, the embedded Redis server needs that place"
        )
    # Left by a server that was killed: with the lock held, nobody listens there.
    socket_path.unlink()


def release_socket(socket_path: Path, folder: Path) -> None:
    """Remove the socket and its runtime folder, as far as they are there. Only after `claim_socket` has succeeded."""
    with contextlib.suppress(OSError):
        socket_path.unlink()
    if socket_path.parent != folder:
        with contextlib.suppress(OSError):
            socket_path.parent.rmdir()


def bound_log(log_path: Path) -> int:
    """Cut a log of over MAX_LOG_BYTES down to its last KEPT_LOG_BYTES; its size now, in bytes."""
    try:
        size = log_path.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= MAX_LOG_BYTES:
        return size
    with log_path.open("r+b") as log_file:
        log_file.seek(size - KEPT_LOG_BYTES)
        kept = log_file.read()
        log_file.seek(0)
        log_file.truncate()
        return log_file.write(kept)


def log_tail(log_path: Path, *, since: int) -> str:
    """The last lines of the log, at most MAX_TAIL_BYTES, none from before the offset `since`."""
    try:
        with log_path.open("rb") as log_file:
            size = log_file.seek(0, os.SEEK_END)
            log_file.seek(max(since, size - MAX_TAIL_BYTES))
            return log_file.read(MAX_TAIL_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""


def _fits(socket_path: Path) -> bool:
    return len(os.fsencode(socket_path)) <= MAX_SOCKET_PATH_BYTES


def _claim_runtime_folder(runtime: Path) -> None:
    """The name can be guessed and its parent may be writable by all: use what is there only if it can be only ours."""
    try:
        with contextlib.suppress(FileExistsError):
            runtime.mkdir(mode=0o700)
        found = runtime.lstat()
    except OSError as error:
        raise StoreUnavailable(f"The runtime folder {runtime} cannot be made: {error}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StoreUnavailable(
            f"{runtime} is a link, or belongs to or is open to other users: not putting the Redis socket there. "
            "Remove it, or choose a shorter --state-dir"
        )


def _read_holder(lock: int) -> list[int]:
    """The pids in the lock file: Cody's, then its server's; empty while a new holder is just writing them."""
    return [int(word) for word in os.pread(lock, 64, 0).split() if word.isdigit()]


def _is_alive(pid: int) -> bool:
    try:
        # A zombie holds nothing: its parent only has not asked for it yet.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _held(folder: Path, holder: list[int]) -> StoreUnavailable:
    match holder:
        case [cody_pid, server_pid]:
            who = f"Cody process {cody_pid} with its Redis server {server_pid}"
        case [cody_pid]:
            who = f"Cody process {cody_pid}"
        case _:
            who = "another process"
    return StoreUnavailable(
        f"The folder {folder} is in use by {who}: end that one, or give this one another --state-dir",
        details={"folder": str(folder), "pids": holder},
    )
