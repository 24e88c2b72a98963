"""The most memory that a push takes; as a program, for a gigabyte: `python -m tests.sync.large_push [MEGABYTES]`.

It needs about three times the file's size on the disk that has the folder for temporary files, and some minutes. Ends
with 1 when the client takes 100 MB, or the server, which has other things loaded too, 64 MB more than for a small file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.sync.syncing_cody import Laptop, Team, environment, team_server

MEGABYTE = 1 << 20
CLIENT_LIMIT_BYTES = 100 * MEGABYTE
SERVER_GROWTH_BYTES = 64 * MEGABYTE
DEADLINE_S_PER_MEGABYTE = 1.4
"""Ends what hangs; a gigabyte takes about a minute."""
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Runs a command and tells its most memory in KiB. What is told begins with that of whoever starts it: this is small."""


def pushed_peaks(team: Team, laptop: Laptop, folder: Path, megabytes: int) -> tuple[int, int]:
    """The most bytes of memory that the client, and the server until now, had for a file of one line and a hole."""
    path = folder / f"{megabytes}.jsonl"
    with path.open("wb") as file:
        file.write(b'{"line": 0}\n')
        file.truncate(megabytes * MEGABYTE)
    measured = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", MEASURED, *laptop.command("push", str(path), "--as", path.name)],
        env=environment(laptop.state_dir, CODY_SYNC_TOKEN=laptop.token),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        said, _ = measured.communicate(timeout=max(100.0, DEADLINE_S_PER_MEGABYTE * megabytes))
    finally:
        if measured.poll() is None:
            os.killpg(measured.pid, signal.SIGKILL)
            measured.wait()
    assert measured.returncode == 0
    return int(said.splitlines()[-1]) * 1024, peak_bytes(team.process.pid)


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had until now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(megabytes: int) -> int:
    with tempfile.TemporaryDirectory(prefix="cody-large-push-") as name:
        folder = Path(name)
        with team_server(f"sqlite:///{folder}/team/sync.sqlite3", folder / "team") as team:
            laptop = Laptop(folder / "laptop", team.url, team.token)
            _, before = pushed_peaks(team, laptop, folder, 8)
            began = time.monotonic()
            client, after = pushed_peaks(team, laptop, folder, megabytes)
            took_s = time.monotonic() - began
    print(f"{megabytes} MB in {took_s:.0f} s: client {client / MEGABYTE:.0f} MB at most, ", end="")
    print(f"server {after / MEGABYTE:.0f} MB ({before / MEGABYTE:.0f} MB for 8 MB)")
    return int(client >= CLIENT_LIMIT_BYTES or after - before >= SERVER_GROWTH_BYTES)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024))
