"""Slots are never oversold, are handed on in order, and survive a waiter that gives up."""

from __future__ import annotations

import asyncio

import pytest

from harness.slots import Slot, Slots


async def test_no_more_than_there_are_in_the_order_they_were_asked_for() -> None:
    slots = Slots(2)
    got: list[int] = []

    async def want(number: int) -> None:
        await slots.take()
        got.append(number)

    tasks = [asyncio.create_task(want(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert (got, slots.used) == ([0, 1], 2)
    assert not slots.take_now()
    for expected in ([0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        slots.give_back()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (got, slots.used) == (expected, 2)
    await asyncio.gather(*tasks)
    slots.give_back()
    slots.give_back()
    assert slots.used == 0
    assert slots.take_now()


async def test_one_that_stops_waiting_loses_no_slot() -> None:
    slots = Slots(1)
    await slots.take()
    first, second = asyncio.create_task(slots.take()), asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    slots.give_back()
    await second
    # Cancelled in the very moment it was given the slot: the slot goes on.
    third = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give_back()
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    assert slots.used == 0

    # Cancelled and passed over before it noticed.
    await slots.take()
    fourth = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    fourth.cancel()
    slots.give_back()
    with pytest.raises(asyncio.CancelledError):
        await fourth
    assert slots.used == 0


async def test_a_run_holds_at_most_one() -> None:
    told: list[int] = []
    slots = Slots(3, lambda: told.append(slots.used))
    slot = Slot(slots)
    assert slot.take_now()
    assert slot.take_now()
    await slot.take()
    assert slots.used == 1
    slot.give_back()
    slot.give_back()
    assert slots.used == 0
    assert told == [1, 0]
