"""The most memory that a push takes; as a program, for a gigabyte: `python -m tests.sync.large_push [MEGABYTES]`.

It needs about three times the file's size on the disk that has the folder for temporary files, and some minutes. Ends
with 1 when the client takes 100 MB, or the server, which has other things loaded too, 64 MB more than for a small file.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.sync.syncing_cody import Laptop, Team, team_server

MEGABYTE = 1 << 20
CLIENT_LIMIT_BYTES = 100 * MEGABYTE
SERVER_GROWTH_BYTES = 64 * MEGABYTE
DEADLINE_S_PER_MEGABYTE = 1.4
"""Ends what hangs; a gigabyte takes about a minute."""


def pushed_peaks(team: Team, laptop: Laptop, folder: Path, megabytes: int) -> tuple[int, int]:
    """The most bytes of memory that the client, and the server until now, had for a file of one line and a hole."""
    path, client = folder / f"{megabytes}.jsonl", 0
    with path.open("wb") as file:
        file.write(b'{"line": 0}\n')
        file.truncate(megabytes * MEGABYTE)
    process = laptop.start("push", str(path), "--as", path.name)
    give_up_at = time.monotonic() + max(100.0, DEADLINE_S_PER_MEGABYTE * megabytes)
    try:
        while process.poll() is None:
            assert time.monotonic() < give_up_at, "the file is not sent"
            client = max(client, peak_bytes(process.pid))
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    return client, peak_bytes(team.process.pid)


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had; not the rusage of its end, which begins with that of this process."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


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
