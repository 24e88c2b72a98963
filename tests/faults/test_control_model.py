"""1,000 and more mixed calls against the state machine's table: control, the worker's own moves, repeats, take-overs."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, get_args

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from cody.contracts.lifecycle import REQUESTED, TRANSITIONS, LifecycleEvent
from cody.contracts.run import TERMINAL, ControlAction, RunStatus
from cody.contracts.run_config import RunConfig
from cody.errors import Conflict
from cody.store import control, events, keys, leases, runs
from cody.store.clients import connect
from cody.store.events import Answer, Commit, PendingEvent, commit
from cody.store.leases import Claim, Ended

OWN_MOVES: tuple[LifecycleEvent, ...] = (
    "worker_started",
    "pause_acknowledged",
    "cancel_acknowledged",
    "run_completed",
    "run_failed",
)
calls = 0


class ControlledRun(RuleBasedStateMachine):
    """The model: a status, a sequence number, a fence, and the messages that were accepted."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.redis: Redis = self.do(self._connect())
        self.run_id = str(uuid.uuid4())
        self.status: RunStatus = "queued"
        self.seq, self.fence, self.accepted = 1, 0, 0
        config = RunConfig(working_dir="/r")
        self.do(runs.create(self.redis, self.run_id, epic_id="e", config=config, now_ms=1))
        self.own()

    async def _connect(self) -> Redis:
        return connect(self.url)

    def do(self, awaited: Any) -> Any:
        global calls
        calls += 1
        return self.runner.run(awaited)

    def own(self) -> None:
        worker = str(uuid.uuid4())
        claim = self.do(leases.acquire(self.redis, self.run_id, worker_id=worker, host="h", ttl_ms=60_000))
        if self.status in TERMINAL:
            assert claim == Ended(self.status)
        else:
            assert isinstance(claim, Claim)
            assert claim.fence == self.fence + 1
            self.fence = claim.fence

    @rule(action=st.sampled_from(get_args(ControlAction)), reason=st.none() | st.text(max_size=20))
    def ask(self, action: ControlAction, reason: str | None) -> None:
        target = TRANSITIONS[self.status].get(REQUESTED[action])
        asked = control.request(self.redis, self.run_id, action, reason=reason, now="t")
        if target is None:
            with pytest.raises(Conflict):
                self.do(asked)
        else:
            assert self.do(asked) == target
            self.status = target
            self.accepted += 1

    @rule(actions=st.lists(st.sampled_from(get_args(ControlAction)), min_size=2, max_size=8))
    def ask_at_the_same_time(self, actions: list[ControlAction]) -> None:
        """Whatever the order was, what was accepted is a walk through the table."""

        async def all_at_once() -> list[RunStatus | BaseException]:
            requests = (control.request(self.redis, self.run_id, one, reason=None, now="t") for one in actions)
            return await asyncio.gather(*requests, return_exceptions=True)

        answers = self.do(all_at_once())
        reached = [answer for answer in answers if isinstance(answer, str)]
        assert all(isinstance(answer, str | Conflict) for answer in answers)
        assert len(reached) == len(set(reached)) or "pausing" in reached
        for _ in reached:
            steps = {TRANSITIONS[self.status].get(REQUESTED[action]) for action in actions} & set(reached)
            step = next(iter(sorted(status for status in steps if status)))
            reached.remove(step)
            self.status = step
            self.accepted += 1
            if not reached:
                break

    def write(self, event: LifecycleEvent, fence: int, first_seq: int) -> Commit:
        target = TRANSITIONS[self.status].get(event, "failed")
        written: Commit = self.do(
            commit(
                self.redis,
                self.run_id,
                fence=fence,
                first_seq=first_seq,
                events=[PendingEvent(event, "t", b"{}")],
                meta={"status": target},
                expected_status=self.status,
                end_ttl_s=600 if target in TERMINAL else None,
            )
        )
        return written

    @rule(event=st.sampled_from(OWN_MOVES), repeated=st.booleans())
    def move(self, event: LifecycleEvent, repeated: bool) -> None:
        """The worker makes a move of its own, and repeats the call as after a lost reply."""
        target = TRANSITIONS[self.status].get(event)
        if target is None:
            return
        assert self.write(event, self.fence, self.seq + 1).answer is Answer.OK
        if repeated:
            assert self.write(event, self.fence, self.seq + 1).answer is Answer.DUPLICATE
        self.seq += 1
        self.status = target

    @rule(event=st.sampled_from(OWN_MOVES))
    def move_by_a_former_owner(self, event: LifecycleEvent) -> None:
        assert self.write(event, self.fence - 1, self.seq + 1).answer is Answer.FENCED

    @rule(event=st.sampled_from(OWN_MOVES))
    def move_with_a_hole(self, event: LifecycleEvent) -> None:
        assert self.write(event, self.fence, self.seq + 2).answer is Answer.GAP

    @rule()
    def take_over(self) -> None:
        self.do(self.redis.delete(keys.lock(self.run_id)))
        self.own()

    @invariant()
    def redis_is_where_the_model_is(self) -> None:
        kept = self.do(runs.fields(self.redis, self.run_id))
        assert (kept["status"], int(kept["lastSeq"]), int(kept["fence"])) == (self.status, self.seq, self.fence)
        assert self.do(self.redis.xlen(keys.control(self.run_id))) == self.accepted
        frames = self.do(events.after(self.redis, self.run_id, "0-0"))
        assert [frame.seq for frame in frames] == list(range(1, self.seq + 1))

    def teardown(self) -> None:
        self.do(self.redis.aclose())
        self.runner.close()


async def test_nothing_but_the_table_moves_a_run(redis: Redis, valkey_url: str) -> None:
    """In a thread: hypothesis' machines have an event loop of their own."""
    chosen = settings(
        max_examples=30,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    machine = type("Controlled", (ControlledRun,), {"url": valkey_url})
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=chosen)
    assert calls > 1_000
