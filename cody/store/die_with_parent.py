"""Run a program that gets SIGTERM when its parent dies: `python -I -S die_with_parent.py PARENT_PID PROGRAM [ARG...]`.

A program of its own, not an import: the death signal has to be set between fork and exec, and a preexec_fn there
forks the whole of Cody (slow when it is big) and may deadlock when other threads hold locks. Only the standard library,
so that `-I -S` starts in some 15 ms. On Linux only: elsewhere the kernel has no such signal and the program just runs.

The signal is kept over exec (prctl(2), PR_SET_PDEATHSIG), is sent when the *thread* that spawned this process ends, and
is SIGTERM, so that a Redis server still flushes its append-only file.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main(argv: list[str]) -> None:
    parent_pid = int(argv[0])
    program = argv[1]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
            sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:
        # The parent died before the signal was set: it will never be sent, so starting would leave an orphan.
        sys.exit(f"process {parent_pid}, which started this, is gone")
    os.execv(program, argv[1:])  # noqa: S606  (a shell in between would keep the death signal for itself)


if __name__ == "__main__":
    main(sys.argv[1:])
