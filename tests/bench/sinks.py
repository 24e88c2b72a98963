"""Many readers in one process: `python -m tests.bench.sinks PORT COUNT` with the request's bytes as the first line (JSON).

Prints `open` when all have their answer's head. Then for each line on stdin one line: the bytes that came so far, all readers
together, and the least that one of them has. `stall N` makes the first N read no more. Ends at the end of stdin.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
import time

PASS_S = 0.01
"""Between two rounds: what came meanwhile is read at once, so that the readers cost little of the machine."""
BUFFER = 1 << 20


def main(port: int, count: int) -> None:
    request = json.loads(sys.stdin.readline()).encode()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65_536, hard), hard))
    readers: dict[int, socket.socket] = {}
    got: dict[int, int] = {}
    while len(readers) < count:
        one = socket.create_connection(("127.0.0.1", port), timeout=30)
        one.sendall(request)
        head = one.recv(BUFFER)
        if b" 429 " in head[:20]:  # so many from one caller are asked to come a little later
            one.close()
            time.sleep(1)
            continue
        assert b" 200 " in head[:20], head
        readers[one.fileno()] = one
        got[one.fileno()] = len(head)
    poll = select.epoll()
    for fd, one in readers.items():
        one.setblocking(False)
        poll.register(fd, select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    print("open", flush=True)
    buffer = bytearray(BUFFER)
    while True:
        time.sleep(PASS_S)
        for fd, _ in poll.poll(1, count + 1):
            if fd == 0:
                asked = sys.stdin.readline()
                if not asked:
                    return
                if asked.startswith("stall"):
                    for stalled in list(readers)[: int(asked.split()[1])]:
                        poll.unregister(stalled)
                        got.pop(stalled)
                print(sum(got.values()), min(got.values()), flush=True)
                continue
            size = readers[fd].recv_into(buffer)
            if size == 0:
                poll.unregister(fd)
            got[fd] += size


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
