"""Agents that misbehave: `python hostile.py KIND`. Standard library only; each ends with one whole line that must arrive."""

from __future__ import annotations

import os
import socket
import sys
import time

LAST = b'{"__cody_event__": {"type": "mark", "fence": 0, "turn": 0, "n": 0}}\n'


def write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def long_line() -> None:
    for _ in range(50):
        write(b"x" * (1 << 20))
    write(b"\n")


def many_lines() -> None:
    block = b"".join(b"line %d\n" % number for number in range(10_000))
    for _ in range(100):
        write(block)


def garbage() -> None:
    write(b"\xff\xfe\x00\x01 \x00\x00 caf\xc3\n" * 50)
    write(b'{"__cody_event__": {"type": "token_usage", "inputTokens": \n{"__cody_event__": 7}\n')
    write(b'{"__cody_event__": {"type": "token_usage", "inputTokens": NaN}}\n')
    write(b'{"__cody_event__": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001 + b"\n")


def forged() -> None:
    for kind in ("run_completed", "run_failed", "run_cancelled", "turn_completed", "completion_detected", "run_queued"):
        write(b'{"__cody_event__": {"type": "%b", "seq": 1, "runId": "x"}}\n' % kind.encode())
    write(b'{"type": "run_completed", "seq": 2}\ndata: [DONE]\n\nid: 9-9\ndata: {}\n\n')


def stop_symlink() -> None:
    target = os.environ["CODY_STOP_FILE"] + ".target"
    with open(target, "w", encoding="utf-8") as file:
        file.write("x")
    os.symlink(target, os.environ["CODY_STOP_FILE"])


def stop_fifo() -> None:
    os.mkfifo(os.environ["CODY_STOP_FILE"])


def stop_folder() -> None:
    os.mkdir(os.environ["CODY_STOP_FILE"])


def stop_socket() -> None:
    os.chdir(os.path.dirname(os.environ["CODY_STOP_FILE"]))
    socket.socket(socket.AF_UNIX).bind(os.path.basename(os.environ["CODY_STOP_FILE"]))


def silence() -> None:
    time.sleep(3_600)


def main(kind: str) -> None:
    if os.environ["CODY_TURN"] == "1":
        globals()[kind]()
    write(LAST)


if __name__ == "__main__":
    main(sys.argv[1])
