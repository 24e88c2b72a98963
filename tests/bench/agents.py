"""Agents for measurements: `python agents.py KIND ...`. Standard library only; times are CLOCK_MONOTONIC in ns.

`steady COUNT PER_SECOND`: sentinels with the time of their printing. `burst COUNT`: as fast as they are taken; then the time
that took. `signalled FILE`: sleeps until SIGTERM, then writes the time to FILE.
"""

from __future__ import annotations

import os
import signal
import sys
import time

MARK = '{{"__cody_event__": {{"type": "mark", "n": {n}, "ns": {ns}, "text": "{text}"}}}}\n'
TEXT = "x" * 100


def write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def steady(count: str, per_second: str) -> None:
    time.sleep(0.5)  # until its reader is there
    began = time.monotonic()
    for n in range(int(count)):
        time.sleep(max(0.0, began + n / float(per_second) - time.monotonic()))
        write(MARK.format(n=n, ns=time.monotonic_ns(), text=TEXT).encode())


def burst(count: str) -> None:
    time.sleep(0.5)
    block = 100
    for begin in range(0, int(count), block):
        ns = time.monotonic_ns()
        write("".join(MARK.format(n=n, ns=ns, text=TEXT) for n in range(begin, begin + block)).encode())
    write(MARK.format(n=-1, ns=time.monotonic_ns(), text="last").encode())


def signalled(path: str) -> None:
    def heard(number: int, frame: object) -> None:
        ns = time.monotonic_ns()
        with open(f"{path}.new", "w", encoding="ascii") as file:
            file.write(str(ns))
        os.rename(f"{path}.new", path)
        sys.exit(0)

    signal.signal(signal.SIGTERM, heard)
    write(MARK.format(n=0, ns=time.monotonic_ns(), text="ready").encode())
    while True:
        signal.pause()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
