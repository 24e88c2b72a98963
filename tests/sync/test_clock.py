"""Waiting for a moment or a ring: nothing missed, nothing slept through."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from cody.sync.clock import Clock, ManualClock

DEADLINE_S = 60


async def test_a_ring_between_looking_and_waiting_is_not_missed() -> None:
    clock = ManualClock()
    seen = clock.rings
    clock.ring()
    await asyncio.wait_for(clock.wait(seen, None), DEADLINE_S)


async def test_a_ring_wakes_everybody_who_waits() -> None:
    clock = ManualClock()
    waiting = [asyncio.create_task(clock.wait(clock.rings, None)) for _ in range(3)]
    await asyncio.sleep(0)
    clock.ring()
    await asyncio.wait_for(asyncio.gather(*waiting), DEADLINE_S)


@pytest.mark.parametrize("clock", [Clock(), ManualClock()])
async def test_a_step_ends_the_wait_for_a_moment_that_was_far_away(clock: Clock) -> None:
    until = clock.now() + timedelta(days=1)
    waiting = asyncio.create_task(clock.wait(clock.rings, until))
    await asyncio.sleep(0)
    clock.step(86_400)
    await asyncio.wait_for(waiting, DEADLINE_S)
    assert clock.now() >= until
    await asyncio.wait_for(clock.wait(clock.rings, until), DEADLINE_S)


async def test_the_systems_clock_goes_by_itself_and_is_utc() -> None:
    clock = Clock()
    until = clock.now() + timedelta(milliseconds=5)
    while clock.now() < until:
        await asyncio.wait_for(clock.wait(clock.rings, until), DEADLINE_S)
    assert clock.now().utcoffset() == timedelta()


async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    clock = ManualClock()
    waiting = asyncio.create_task(clock.wait(clock.rings, None))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    clock.ring()
    assert not clock._waiting
