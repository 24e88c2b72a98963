"""Goals 1 and 2: from an agent's line to a reader, one by one and as many as possible."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.bench.client import Client, received
from tests.bench.figures import Figure, median, quantile
from tests.bench.raw_redis import pipelined_adds_per_s, xread_delays_ns
from tests.bench.stand import Stand, stand
from tests.server.cody_server import REPOSITORY, CodyServer

AGENT = [sys.executable, "-I", "-S", str(Path(__file__).with_name("agents.py"))]
PER_SECOND = 100
ROUNDS = 3
_MARK = re.compile(rb'"data":\{"n":(-?\d+),"ns":(\d+)')


def socket_path(made: Stand) -> str:
    return str(made.valkey.url.removeprefix("unix://").partition("?")[0])


def _floor(made: Stand, count: int) -> list[float]:
    """Delays in ms of XADD -> XREAD, from process to process."""
    path = socket_path(made)
    words = [sys.executable, "-m", "tests.bench.raw_redis", path, "floor", str(count), str(PER_SECOND)]
    writer = subprocess.Popen(words, cwd=REPOSITORY)
    try:
        return [ns / 1e6 for ns in xread_delays_ns(path, "floor", count)]
    finally:
        writer.wait(60)


def _delays(made: Stand, server: CodyServer, client: Client, count: int) -> list[float]:
    run_id = client.start(made.folder / "steady", [*AGENT, "steady", str(count), str(PER_SECOND)])
    delays = [
        (now_ns - int(found[2])) / 1e6 for now_ns, data in received(server, run_id) for found in _MARK.finditer(data)
    ]
    assert len(delays) >= count * 0.99, len(delays)  # a piece's edge may cut one in two
    return delays


def _burst(made: Stand, server: CodyServer, client: Client, count: int) -> float:
    """Lines a second, from the first one's printing to the last one's arrival; all of them arrived."""
    run_id = client.start(made.folder / "burst", [*AGENT, "burst", str(count)])
    whole, last_ns = b"", 0
    for now_ns, data in received(server, run_id):
        whole += data
        last_ns = now_ns if b'"n":-1,' in data else last_ns
    # A chunk's length may stand in the midst of an event.
    text = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", whole)
    seen = {int(found[1]): int(found[2]) for found in _MARK.finditer(text)}
    assert len(seen) >= count * 0.999, f"{count - len(seen)} lines are missing"
    return count / ((last_ns - seen[0]) / 1e9)


async def measure(*, quick: bool) -> list[Figure]:
    """Goals 1 and 2."""
    count, lines = (200, 20_000) if quick else (500, 40_000)
    floor: list[float] = []
    ours: list[float] = []
    bursts: list[float] = []
    adds: list[float] = []
    async with stand() as made:
        with made.server() as server:
            client = Client(server)
            for _ in range(ROUNDS):
                floor += _floor(made, count)
                await made.redis.delete("floor")
                ours += _delays(made, server, client, count)
                adds.append(pipelined_adds_per_s(socket_path(made), "adds", lines, 300))
                bursts.append(_burst(made, server, client, lines))
            client.close()
    what = "agent's line -> reader, 100 lines/s, against raw XADD -> XREAD"
    return [
        Figure(1, f"{what}, p50", quantile(ours, 0.5), "ms", 2.5, quantile(floor, 0.5)),
        Figure(1, f"{what}, p99", quantile(ours, 0.99), "ms", 3, quantile(floor, 0.99)),
        Figure(
            2,
            f"{lines:,} lines child -> Redis -> reader, nothing lost, against pipelined XADD",
            median(bursts),
            "lines/s",
            0.35,
            median(adds),
            at_least=True,
        ),
    ]
