"""An agent with a plain child, a setsid child and a double-forked setsid daemon. Says "ready" when all are up.

tree.py [ignore-term] [exit CODE]: all of them ignore SIGTERM; the agent itself ends at once and leaves the others.
"""

from __future__ import annotations

import os
import signal
import sys


def stay() -> None:
    while True:
        signal.pause()


def child(ready: int, *, session: bool, daemon: bool) -> None:
    pid = os.fork()
    if pid == 0:
        if session:
            os.setsid()
        if daemon and os.fork() > 0:
            os._exit(0)
        os.write(ready, b"x")
        stay()
    if daemon:
        os.waitpid(pid, 0)  # the one in between


def main(words: list[str]) -> None:
    if "ignore-term" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    up, ready = os.pipe()
    child(ready, session=False, daemon=False)
    child(ready, session=True, daemon=False)
    child(ready, session=True, daemon=True)
    for _ in range(3):
        os.read(up, 1)
    os.write(1, b"ready\n")
    if "exit" in words:
        os._exit(int(words[-1]))
    stay()


main(sys.argv[1:])
