"""An agent that keeps its own record of when it lived, in a file that Cody never reads: the oracle for overlaps.

`python oracle_agent.py EVIDENCE DONE`: one JSON object a line goes to EVIDENCE (pid, fence, turn, `what`, `ns` of
CLOCK_BOOTTIME): `begin`, a `beat` every 5 ms, `end`. Every 20 ms it prints a numbered sentinel. When the file DONE is
there, it makes the stop file and ends. Standard library only; every line is one write to an O_APPEND file.
"""

from __future__ import annotations

import os
import sys
import time

BEAT_S = 0.005
BEATS_PER_MARK = 4


def main(evidence: str, done: str) -> None:
    fence, turn = os.environ["CODY_FENCE"], os.environ["CODY_TURN"]
    fd = os.open(evidence, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(what: str) -> None:
        ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        line = f'{{"pid": {os.getpid()}, "fence": {fence}, "turn": {turn}, "what": "{what}", "ns": {ns}}}\n'
        os.write(fd, line.encode())

    note("begin")
    beats = marks = 0
    while not os.path.exists(done):
        time.sleep(BEAT_S)
        note("beat")
        beats += 1
        if beats % BEATS_PER_MARK == 0:
            mark = f'{{"__cody_event__": {{"type": "mark", "fence": {fence}, "turn": {turn}, "n": {marks}}}}}\n'
            sys.stdout.write(mark)
            sys.stdout.flush()
            marks += 1
    with open(os.environ["CODY_STOP_FILE"], "w", encoding="utf-8") as file:
        file.write("done")
    note("end")


if __name__ == "__main__":
    main(*sys.argv[1:3])
