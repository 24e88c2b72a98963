"""Redis by plain sockets: the floors. As a program, a writer: `python -m tests.bench.raw_redis SOCKET KEY COUNT PER_SECOND`."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator

import hiredis

REPLY_BYTES = 1 << 20
PIPELINED = 100


def command(*words: object) -> bytes:
    """A command as Redis reads it."""
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class RawRedis:
    """One blocking connection to a unix socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._reader = hiredis.Reader()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self) -> object:
        """The next reply; `False` is none of Redis' in RESP2."""
        while (found := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(REPLY_BYTES))
        return found

    def ask(self, *words: object) -> object:
        self.send(command(*words))
        return self.reply()


def xread_delays_ns(path: str, key: str, count: int) -> list[int]:
    """How long entries with a field `ns` took from their writer's XADD to us, one after another."""
    redis, last = RawRedis(path), "0"
    delays: list[int] = []
    while len(delays) < count:
        found = redis.ask("XREAD", "BLOCK", 0, "STREAMS", key, last)
        now_ns = time.monotonic_ns()
        assert isinstance(found, list)
        for entry_id, fields in found[0][1]:
            last = entry_id.decode()
            delays.append(now_ns - int(fields[1]))
    redis.close()
    return delays


def pipelined_adds_per_s(path: str, key: str, count: int, size: int) -> float:
    """XADDs a second of entries with `size` bytes, PIPELINED at a time."""
    redis = RawRedis(path)
    block = command("XADD", key, "MAXLEN", "~", 50_000, "*", "payload", "x" * size) * PIPELINED
    began = time.perf_counter()
    for _ in range(count // PIPELINED):
        redis.send(block)
        for _ in range(PIPELINED):
            redis.reply()
    took = time.perf_counter() - began
    redis.close()
    return count / took


def entries_per_s(path: str, key: str, page: int = 1_000) -> tuple[float, int]:
    """Entries a second that XRANGE gives to hiredis, and how many there are."""
    redis = RawRedis(path)
    began, seen = time.perf_counter(), 0
    for entries in _pages(redis, key, page):
        seen += len(entries)
    took = time.perf_counter() - began
    redis.close()
    return seen / took, seen


def _pages(redis: RawRedis, key: str, page: int) -> Iterator[list[list[bytes]]]:
    begin = "-"
    while True:
        found = redis.ask("XRANGE", key, begin, "+", "COUNT", page)
        assert isinstance(found, list)
        if not found:
            return
        yield found
        begin = f"({found[-1][0].decode()}"


def main(path: str, key: str, count: str, per_second: str) -> None:
    redis, began = RawRedis(path), time.monotonic()
    for n in range(int(count)):
        time.sleep(max(0.0, began + n / float(per_second) - time.monotonic()))
        redis.ask("XADD", key, "*", "ns", time.monotonic_ns(), "text", "x" * 250)
    redis.close()


if __name__ == "__main__":
    main(*sys.argv[1:5])
