"""Faults of Redis and of the way to it: killed, stalled, wiped, set back, replies lost, cut off, the clock stepped."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from redis.asyncio import Redis

from cody.errors import StreamTrimmed
from cody.store import keys
from cody.store.clients import connect
from cody.store.embedded import EmbeddedServer
from cody.store.server_binary import find_server_binary
from tests.faults.machines import marked, network
from tests.faults.stage import Measured, Stage, Watched, boottime_ns, leases, stage, until
from tests.proxy import Proxy

ENDED_WITHIN_S = 25
"""A worker's end without Redis: the grace, what waits for answers, docket's goodbye, each bounded."""
UNHEARD_BYTES = 4_000
"""Some fifty beats of the agent's own record, with marks among what it says meanwhile."""


async def redis_killed(seed: int) -> Measured:
    """kill -9 of Redis, started again at once: the agent works on, what it said meanwhile arrives."""
    async with stage(seed, ttl_ms=leases.long_ms) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        fault_ns = boottime_ns()
        await kill_redis(set_up)
        await set_up.server.start()
        await run.marks_of(1, 100)
        end = await run.end()
        assert (end.status, end.fence, len(run.of("turn_started"))) == ("completed", 1, 1), end
        return await set_up.measure(run, fault_ns)


async def kill_redis(set_up: Stage) -> None:
    os.kill(set_up.server.pid, signal.SIGKILL)
    await set_up.server.wait_exit()


async def redis_away(seed: int) -> Measured:
    """Redis away for two leases: the agent is ended in time, and the run is taken up when Redis is back."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        await kill_redis(set_up)
        await set_up.died_in_time(run, boottime_ns())
        await set_up.server.start()
        fault_ns = boottime_ns()
        return await taken_up_again(set_up, run, fault_ns)


async def taken_up_again(set_up: Stage, run: Watched, fault_ns: int) -> Measured:
    await run.marks_of(2)
    end = await run.end()
    assert end.status == "completed", end
    return await set_up.measure(run, fault_ns)


async def redis_stopped(seed: int) -> Measured:
    """SIGSTOP of Redis for two leases: connections stay open, nothing answers."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        os.kill(set_up.server.pid, signal.SIGSTOP)
        try:
            await set_up.died_in_time(run, boottime_ns())
        finally:
            os.kill(set_up.server.pid, signal.SIGCONT)
        fault_ns = boottime_ns()
        return await taken_up_again(set_up, run, fault_ns)


async def redis_paused(seed: int) -> Measured:
    """CLIENT PAUSE for a third of a lease: nothing happens but a delay.

    As long as the agent is not asked to end: a third of the lease may have passed since the last renewal, and a margin and
    the grace are kept for the end.
    """
    async with stage(seed, ttl_ms=leases.long_ms) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        fault_ns = boottime_ns()
        await set_up.redis.client_pause(set_up.ttl_ms // 3)
        await run.marks_of(1, 120)
        end = await run.end()
        assert (end.status, end.fence, len(run.of("turn_started"))) == ("completed", 1, 1), end
        return await set_up.measure(run, fault_ns)


async def redis_paused_default(seed: int) -> Measured:
    """CLIENT PAUSE for 3.3 s with the default lease (15 s) and grace (5 s): what is promised never to cost a turn."""
    async with stage(seed, ttl_ms=15_000) as set_up:
        await set_up.machine("a", grace_s=5.0)
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter(4.0)
        fault_ns = boottime_ns()
        await set_up.redis.client_pause(3_300)
        await run.marks_of(1, 250)
        end = await run.end()
        assert (end.status, end.fence, len(run.of("turn_started"))) == ("completed", 1, 1), end
        return await set_up.measure(run, fault_ns)


async def redis_wiped(seed: int) -> Measured:
    """FLUSHALL in the middle of a turn: the agent is ended, its readers are told, other runs can start."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        fault_ns = boottime_ns()
        await set_up.redis.flushall()
        await until(lambda: not marked(run.run_id), "the agent is ended")
        gone_ms = (boottime_ns() - fault_ns) / 1e6
        await run.until(lambda: run.failure, "the reader is told")
        assert isinstance(run.failure, StreamTrimmed), run.failure
        assert not await set_up.redis.exists(keys.meta(run.run_id), keys.events(run.run_id)), "written to after all"
        second = await set_up.run()
        await second.marks_of(1)
        assert (await second.end()).status == "completed"
        judged = await set_up.measure(second, fault_ns)
        return replace(judged, orphans=judged.orphans + len(marked(run.run_id)), takeover_ms=gone_ms)


async def redis_set_back(seed: int) -> Measured:
    """Redis comes back with the data of some seconds ago: the agent is ended, readers are told, the run goes on.

    What came after the older state is gone, and is said to be: it counts as told, not as lost.
    """
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        folder, older = set_up.server.folder / "appendonlydir", set_up.folder / "older"
        shutil.copytree(folder, older)
        await run.marks_of(1, 60)
        await kill_redis(set_up)
        shutil.rmtree(folder)
        shutil.copytree(older, folder)
        await set_up.server.start()
        fault_ns = boottime_ns()
        return await told_and_taken_up_again(set_up, run, fault_ns)


async def told_and_taken_up_again(set_up: Stage, run: Watched, fault_ns: int) -> Measured:
    """Redis has forgotten the newest events: their reader is told, and reads anew what there is and what follows."""
    await run.until(lambda: run.failure, "the reader is told")
    assert isinstance(run.failure, StreamTrimmed), run.failure
    await run.close()
    run.events.clear()
    run.failure = None
    run.listen()
    return await taken_up_again(set_up, run, fault_ns)


async def redis_failed_over(seed: int) -> Measured:
    """Redis dies, and its replica, which has all of it, takes its address: the agent works on, and nothing is missing."""
    async with replica() as successor, stage(seed, ttl_ms=leases.long_ms, door=successor.door) as set_up:
        await successor.follow(set_up)
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        fault_ns = boottime_ns()
        await set_up.redis.client_pause(60_000, all=False)
        await until(lambda: successor.has_caught_up(set_up), "the replica has all that was answered")
        await successor.bereave(set_up)
        written = run.evidence.stat().st_size
        await until(lambda: run.evidence.stat().st_size > written + UNHEARD_BYTES, "the agent talks to nobody")
        await successor.take_over()
        await run.more(100)
        end = await run.end()
        assert (end.status, end.fence, len(run.of("turn_started"))) == ("completed", 1, 1), end
        return await set_up.measure(run, fault_ns)


async def redis_failed_over_behind(seed: int) -> Measured:
    """As above, but the replica has not heard the last: readers are told, the agent is ended, the run goes on.

    As after `redis_set_back`, what is gone is told, not lost.
    """
    async with replica() as successor, stage(seed, ttl_ms=leases.long_ms, door=successor.door) as set_up:
        await successor.follow(set_up)
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        successor.link.stall()
        await run.more(60)
        await set_up.jitter()
        await successor.bereave(set_up)
        await successor.take_over()
        fault_ns = boottime_ns()
        return await told_and_taken_up_again(set_up, run, fault_ns)


@dataclass(frozen=True)
class Replica:
    """A second Redis, its way to the first (`link`), and the address at which all others find the first (`door`)."""

    server: EmbeddedServer
    redis: Redis
    link: Proxy
    door: Proxy

    async def follow(self, set_up: Stage) -> None:
        """Returns when it has what the stage's Redis has, and hears what follows."""
        self.link.lead_to(set_up.server.url)
        # By default the first waits 5 s for more replicas.
        await set_up.redis.config_set("repl-diskless-sync-delay", 0)
        await self.redis.replicaof("127.0.0.1", urlsplit(self.link.url).port)
        await until(lambda: self.has_caught_up(set_up), "the replica has what there is")

    async def has_caught_up(self, set_up: Stage) -> bool:
        """It has heard all that the first has said."""
        heard = await self.redis.info("replication")
        said = await set_up.redis.info("replication")
        up: bool = heard["master_link_status"] == "up"
        return up and int(heard["slave_repl_offset"]) == int(said["master_repl_offset"])

    async def bereave(self, set_up: Stage) -> None:
        """kill -9 of the first: nobody answers at its address."""
        self.door.refuse = True
        await kill_redis(set_up)
        self.door.cut()

    async def take_over(self) -> None:
        """This one is written to from now on, at the first one's address."""
        await self.redis.replicaof("NO", "ONE")
        self.door.lead_to(self.server.url)


@asynccontextmanager
async def replica() -> AsyncIterator[Replica]:
    """Outlives the stage, which ends in order only with a Redis."""
    with TemporaryDirectory(prefix="cody-fault-") as folder:
        server = EmbeddedServer(find_server_binary(None), Path(folder), appendfsync="always")
        await server.start()
        redis = connect(server.url)
        try:
            async with Proxy() as link, Proxy() as door:
                yield Replica(server, redis, link, door)
        finally:
            await redis.aclose()
            await server.stop()


async def replies_lost(seed: int) -> Measured:
    """Every so often a command takes effect and its answer, with the connection, is lost."""
    async with stage(seed, ttl_ms=leases.long_ms) as set_up, Proxy(set_up.server.url) as proxy:
        await set_up.machine("a", redis_url=proxy.url)
        run = await set_up.run()
        await run.marks_of(1)
        fault_ns = boottime_ns()
        while proxy.dropped < 40:
            proxy.drop_replies = 1
            await asyncio.sleep(set_up.rng.uniform(0.01, 0.08))
        proxy.drop_replies = 0
        count = len(run.events)
        await run.until(lambda: len(run.events) > count + 20, "events after the losses")
        end = await run.end()
        assert end.status == "completed", end
        return await set_up.measure(run, fault_ns)


async def connections_cut(seed: int) -> Measured:
    """All connections to Redis are cut again and again."""
    async with stage(seed, ttl_ms=leases.long_ms) as set_up, Proxy(set_up.server.url) as proxy:
        await set_up.machine("a", redis_url=proxy.url)
        run = await set_up.run()
        await run.marks_of(1)
        fault_ns = boottime_ns()
        for _ in range(12):
            proxy.cut()
            await asyncio.sleep(set_up.rng.uniform(0.02, 0.25))
        count = len(run.events)
        await run.until(lambda: len(run.events) > count + 20, "events after the cuts")
        end = await run.end()
        assert (end.status, end.fence) == ("completed", 1), end
        return await set_up.measure(run, fault_ns)


async def answers_stalled(seed: int) -> Measured:
    """Packets to and from one machine vanish, without a word, for two leases; another machine takes over."""
    async with stage(seed) as set_up, Proxy(set_up.server.url) as proxy:
        await set_up.machine("a", redis_url=proxy.url)
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.machine("b")
        await set_up.jitter()
        fault_ns = boottime_ns()
        proxy.stall()
        await run.marks_of(2, set_up.marks_in_lease(1.1))
        proxy.flow()
        await run.marks_of(2, set_up.marks_in_lease(1.1) + 40)
        end = await run.end()
        assert (end.status, end.fence) == ("completed", 2), end
        return await set_up.measure(run, fault_ns)


async def partition(seed: int) -> Measured:
    """The cable of one machine is pulled (veth down, network namespaces) for two leases; another machine takes over."""
    with network(1) as near, network(2) as far:
        async with (
            stage(seed) as set_up,
            Proxy(set_up.server.url, near.near) as near_door,
            Proxy(set_up.server.url, far.near) as far_door,
        ):
            await set_up.machine("a", redis_url=near_door.url, network=near.name)
            run = await set_up.run()
            await run.marks_of(1)
            await set_up.machine("b", redis_url=far_door.url, network=far.name)
            await set_up.jitter()
            fault_ns = boottime_ns()
            near.cut()
            await run.marks_of(2, set_up.marks_in_lease(1.1))
            near.mend()
            await run.marks_of(2, set_up.marks_in_lease(1.1) + 40)
            end = await run.end()
            assert (end.status, end.fence) == ("completed", 2), end
            # While both have a way to Redis; without one: `ended_without_redis`.
            await set_up.end_machines()
            return await set_up.measure(run, fault_ns)


async def ended_without_redis(seed: int) -> Measured:
    """SIGTERM for a worker that can't reach Redis: its agent ends, the worker too; another machine goes on."""
    async with stage(seed) as set_up, Proxy(set_up.server.url) as proxy:
        cut_off = await set_up.machine("a", redis_url=proxy.url)
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.machine("b")
        proxy.refuse = set_up.rng.random() < 0.5
        proxy.stall()
        if proxy.refuse:
            proxy.cut()
        await set_up.jitter()
        fault_ns = boottime_ns()
        await cut_off.end(ENDED_WITHIN_S)
        set_up.machines.remove(cut_off)
        await run.marks_of(2)
        end = await run.end()
        assert (end.status, end.fence) == ("completed", 2), end
        return await set_up.measure(run, fault_ns)
