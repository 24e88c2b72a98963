"""Goals 3 and 4: what a delivery to one of many readers costs, how many can be made, what a reader weighs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench.figures import Figure, median
from tests.bench.stand import Child, Stand, child, cpu_s, readers, rss_bytes, stand, stream_request
from tests.server.cody_server import OwnedRun

TEXT_BYTES = 150
FRAME_BYTES = 300
ROUNDS = 3
SETTLED_S = 0.5


@dataclass(frozen=True)
class Measured:
    """`cpu_us`: the sender's time for one delivery. `per_s`: deliveries a second, to the last one's arrival."""

    cpu_us: float
    per_s: float
    bytes_a_client: float = 0.0


async def _measure(
    sinks: Child, pid: int, clients: int, frames: int, send: Callable[[], Awaitable[None]], least_bytes: int
) -> Measured:
    """Have `frames` sent to all; until each reader has `least_bytes` more."""
    before, least = (int(word) for word in (await sinks.ask("?")).split())
    spent, began = cpu_s(pid), time.perf_counter()
    await send()
    while int((await sinks.ask("?")).split()[1]) < least + least_bytes:
        await asyncio.sleep(0.01)
    took = time.perf_counter() - began
    del before
    return Measured((cpu_s(pid) - spent) * 1e6 / (frames * clients), frames * clients / took)


async def bare(clients: int, frames: int, per_second: int) -> list[Measured]:
    """The floor: nothing but `transport.write`."""
    found = []
    with child("bare_server") as server:
        port = int(await asyncio.to_thread(server.hear))
        async with readers(port, clients, "GET / HTTP/1.1\r\n\r\n") as sinks:
            for _ in range(ROUNDS):

                async def send() -> None:
                    assert await server.ask(f"{frames} {per_second} {FRAME_BYTES}") == "done"

                found.append(await _measure(sinks, server.process.pid, clients, frames, send, frames * FRAME_BYTES))
    return found


async def cody(made: Stand, clients: int, frames: int, per_second: int) -> list[Measured]:
    """The same with a run's events, through Redis."""
    found = []
    with made.server(concurrency=0) as server:
        pid = server.process.pid
        run = await OwnedRun.create(made.redis)
        # What a first reader makes the server load is not the readers' weight.
        async with readers(server.port, 20, stream_request(server, run.run_id)):
            await run.add(20, text_bytes=TEXT_BYTES)
        await asyncio.sleep(SETTLED_S)
        empty = rss_bytes(pid)
        async with readers(server.port, clients, stream_request(server, run.run_id, "$")) as sinks:
            for _ in range(ROUNDS):

                async def send() -> None:
                    began = time.perf_counter()
                    for number in range(frames):
                        await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
                        await run.add(1, text_bytes=TEXT_BYTES)

                one = await _measure(sinks, pid, clients, frames, send, frames * FRAME_BYTES)
                found.append(Measured(one.cpu_us, one.per_s, (rss_bytes(pid) - empty) / clients))
        await run.complete()
    return found


async def measure(*, quick: bool) -> list[Figure]:
    """Goals 3 and 4."""
    frames = 200 if quick else 500
    figures: list[Figure] = []
    async with stand() as made:
        floor, ours = await bare(1_000, frames, 100), await cody(made, 1_000, frames, 100)
        figures += [
            Figure(
                3,
                "processor time a delivery, 1,000 readers at 100 events/s",
                median([one.cpu_us for one in ours]),
                "us",
                2.5,
                median([one.cpu_us for one in floor]),
            ),
            Figure(4, "memory a reader", median([one.bytes_a_client for one in ours]) / 1_024, "KiB", 14),
        ]
        frames //= 2
        floor, ours = await bare(5_000, frames, 100), await cody(made, 5_000, frames, 100)
        figures.append(
            Figure(
                4,
                "deliveries a second, 5,000 readers at 100 events/s",
                median([one.per_s for one in ours]),
                "/s",
                0.8,
                median([one.per_s for one in floor]),
                at_least=True,
            )
        )
    return figures
