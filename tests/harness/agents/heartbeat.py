"""An agent that ignores SIGTERM and writes CLOCK_BOOTTIME, in nanoseconds, to the file it is given, over and over."""

from __future__ import annotations

import signal
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
with open(sys.argv[1], "w") as beats:
    while True:
        beats.write(f"{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n")
        beats.flush()
        time.sleep(0.005)
