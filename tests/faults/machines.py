"""Machines for hosts: a process tree that cannot see another's processes, and, where asked for, a network of its own.

As root each machine is a PID namespace (and a network namespace behind a veth pair): a take-over on "another machine" then
cannot sweep the first one's processes, so only what really works over two machines helps. Without root a machine is just a
process: `isolated` says which it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 40


def can_isolate() -> bool:
    """Whether this user may make namespaces."""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("unshare") is not None


def marked(run_id: str) -> list[int]:
    """Every living process of the run, on every machine of this kernel."""
    needle = f"CODY_RUN_ID={run_id}".encode()
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            environ = Path(f"/proc/{entry}/environ").read_bytes()
            state = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()[0]
            if needle in environ.split(b"\0") and state not in (b"Z", b"X"):
                found.append(int(entry))
    return found


def guards(run_id: str) -> list[int]:
    """The guards among them; an agent that is forked and has not become its program yet looks like one."""
    named = {pid for pid in marked(run_id) if _name(pid) == "cody-guard"}
    return [pid for pid in named if parent(pid) not in named]


def agents(run_id: str) -> list[int]:
    """The processes of the run that are no guards."""
    found = guards(run_id)
    return [pid for pid in marked(run_id) if pid not in found]


def is_running(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    return False


def parent(pid: int) -> int:
    """The parent's pid; 0 when the process is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    return 0


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""


@dataclass
class Machine:
    """A real `cody worker`; `pid` is the supervisor's, as this machine sees it."""

    name: str
    process: subprocess.Popen[bytes]
    pid: int
    log: Path
    isolated: bool
    stopped: set[int] = field(default_factory=set)

    @classmethod
    async def start(
        cls,
        name: str,
        folder: Path,
        *,
        redis_url: str,
        ttl_ms: int,
        grace_s: float = 0.3,
        isolated: bool = True,
        network: str | None = None,
        state_dir: Path | None = None,
        **environment: str,
    ) -> Machine:
        """Returns when the worker says that it works."""
        isolated = isolated and can_isolate()
        state = state_dir or folder / f"state-{name}"
        command = [sys.executable, "-m", "harness.host", "--state-dir", str(state), "--concurrency", "4"]
        if isolated:
            # The shell is the machine's init: the machine outlives its supervisor, as a real one does.
            script = 'exec 3>&1; "$@" & wait $!; exec 3>&-; while :; do sleep 1000; done'
            command = [
                *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child"),
                *("sh", "-c", script, "machine", *command),
            ]
        if network is not None:
            command = ["ip", "netns", "exec", network, *command]
        log = folder / f"host-{name}-{os.urandom(3).hex()}.log"
        env = {key: value for key, value in os.environ.items() if not key.startswith("CODY_")}
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={
                    **env,
                    "REDIS_URL": redis_url,
                    "CODY_LOCK_TTL_MS": str(ttl_ms),
                    "CODY_GRACE_SEC": str(grace_s),
                    "CODY_WORKSPACE_ROOTS": str(folder),
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        try:
            assert process.stdout is not None
            line = await asyncio.to_thread(process.stdout.readline)
            assert b"working on" in line, log.read_text(encoding="utf-8", errors="replace")
            return cls(name, process, _supervisor(process.pid), log, isolated)
        except BaseException:
            process.kill()
            process.wait()
            raise

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9 of the supervisor; the machine runs on."""
        self.send(signal.SIGKILL)

    def freeze(self, *others: int) -> None:
        """SIGSTOP of the supervisor and of these."""
        for pid in (self.pid, *others):
            os.kill(pid, signal.SIGSTOP)
            self.stopped.add(pid)

    def thaw(self) -> None:
        for pid in self.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()

    async def end(self, deadline_s: float = DEADLINE_S) -> None:
        """Stop the worker in order, then switch the machine off; fails when it does not end."""
        self.thaw()
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            worker = psutil.Process(self.pid)
            worker.terminate()
            _, alive = await asyncio.to_thread(psutil.wait_procs, [worker], deadline_s)
            if alive:
                await asyncio.to_thread(self.off)
                said = self.log.read_text(encoding="utf-8", errors="replace")[-2_000:]
                raise AssertionError(f"worker {self.name} did not end within {deadline_s} s of SIGTERM: {said}")
        await asyncio.to_thread(self.off)

    def off(self) -> None:
        """Switch the machine off: nothing of it is left."""
        self.thaw()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _supervisor(pid: int) -> int:
    """The worker's pid below what was started."""
    below = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    named = {one for one in below if _is_host(one)}
    # What it has forked and has not become its program yet looks like it.
    (found,) = [one for one in named if parent(one) not in named]
    return found


def _is_host(pid: int) -> bool:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return words[:3] == [os.fsencode(sys.executable), b"-m", b"harness.host"]
    return False


@dataclass(frozen=True)
class Network:
    """A network namespace behind a veth pair; `near` is our address on it."""

    name: str
    device: str
    near: str

    def cut(self) -> None:
        _ip("link", "set", self.device, "down")

    def mend(self) -> None:
        _ip("link", "set", self.device, "up")


def can_make_networks() -> bool:
    """Whether veth pairs and network namespaces can be made here."""
    if not can_isolate() or shutil.which("ip") is None:
        return False
    try:
        with network(250):
            return True
    except subprocess.CalledProcessError:
        return False


@contextlib.contextmanager
def network(number: int) -> Iterator[Network]:
    """10.213.`number`.0/30 between us and a new namespace; removed at the end."""
    tag = f"{os.getpid() % 10_000}n{number}"
    made = Network(f"cody-{tag}", f"cv{tag}", f"10.213.{number}.1")
    _ip("netns", "add", made.name)
    try:
        _ip("link", "add", made.device, "type", "veth", "peer", "name", "far0", "netns", made.name)
        _ip("addr", "add", f"{made.near}/30", "dev", made.device)
        _ip("link", "set", made.device, "up")
        for words in (
            ("addr", "add", f"10.213.{number}.2/30", "dev", "far0"),
            ("link", "set", "far0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", made.name, *words)
        yield made
    finally:
        subprocess.run(["ip", "link", "del", made.device], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", made.name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
