"""Random interleavings of callers, workers, crashes, lost answers and time, against what must hold whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cody.sync.adapters.memory import MemoryAdapter, MemoryStorage
from cody.sync.clock import ManualClock
from cody.sync.conformance.kit import Record
from cody.sync.contracts import TERMINAL, JobSnapshot
from cody.sync.errors import SyncError
from cody.sync.policy import Policy
from cody.sync.storage import JobRow, Write
from cody.sync.worker import Worker

T = TypeVar("T")
WORKERS = st.integers(0, 2)


class Recording(MemoryStorage):
    """Counts what is applied, and loses the answer to a write when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: dict[str, list[int]] = {}
        self.lose_next_answer = False

    async def commit(self, write: Write) -> bool:
        stored = await super().commit(write)
        if stored and write.applied is not None:
            self.applied.setdefault(write.jobs[0].job_id, []).append(write.applied.index)
        if self.lose_next_answer:
            self.lose_next_answer = False
            raise ConnectionError("the answer was lost")
        return stored


class Transfers(RuleBasedStateMachine):
    """One conversation, three workers driven by hand, any number of sources."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock, self.storage = ManualClock(), Recording()
        policy = Policy(lease_s=30, retry_base_s=1, retry_cap_s=4, max_failures=3)
        self.adapter = MemoryAdapter(self.storage, clock=self.clock, policy=policy, workers=0, jitter=lambda: 0.5)
        self.workers = [Worker(self.adapter.bench, f"w{number}") for number in range(3)]
        self.held: list[JobRow | None] = [None] * 3
        self.sources: list[tuple[str, Record]] = []
        self.jobs: dict[str, tuple[int, Record]] = {}
        self.ends: dict[str, JobSnapshot] = {}
        self.leases: dict[str, int] = {}

    def surely(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """As a caller does whose answer was lost: ask again."""
        try:
            return self.do(call())
        except SyncError as refusal:
            if not refusal.retryable:
                raise
            return self.do(call())

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.runner.close()

    @rule(chunks=st.integers(1, 3))
    def collect(self, chunks: int) -> None:
        record = Record(f"source-{len(self.sources)}", chunks)
        source = self.surely(lambda: self.adapter.start("c"))
        for chunk in record.chunks:
            sent = (source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
            self.surely(partial(self.adapter.append, *sent))
        self.sources.append((source.source_id, record))

    @precondition(lambda self: bool(self.sources))
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.sources) - 1))
        source_id, record = self.sources[at]
        job = self.surely(lambda: self.adapter.seal(source_id, record.manifest, record.checksum))
        assert self.jobs.setdefault(job.job_id, (at, record)) == (at, record)
        assert sum(known == at for known, _ in self.jobs.values()) == 1

    @precondition(lambda self: bool(self.jobs))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs, key=lambda known: self.jobs[known][0])))
        assert self.surely(lambda: self.adapter.cancel(job_id)).state in TERMINAL

    @rule(at=WORKERS)
    def take(self, at: int) -> None:
        row = self.do(self.storage.next_job())
        if row is None or row.due_at is None or row.due_at > self.clock.now():
            return
        try:
            taken = self.do(self.workers[at].take(row))
        except ConnectionError:
            return
        if taken is not None:
            assert taken.lease_version > self.leases.get(taken.job_id, 0)
            self.leases[taken.job_id] = taken.lease_version
            self.held[at] = taken

    @rule(at=WORKERS)
    def advance(self, at: int) -> None:
        job = self.held[at]
        if job is None:
            return
        ours = self.do(self.storage.job(job.job_id))
        assert ours is not None
        lost = ours.state in TERMINAL or ours.lease_version != job.lease_version
        try:
            self.held[at] = self.do(self.workers[at].advance(job))
        except SyncError as refusal:
            if refusal.code != "lease_lost" or not lost:
                raise
            self.held[at] = None
        except ConnectionError:
            return  # it does not know whether it was stored, and tries again from the row it has
        else:
            assert not lost
            after = self.held[at]
            if after is not None and after.state in TERMINAL:
                self.held[at] = None

    @rule(at=WORKERS)
    def work(self, at: int) -> None:
        job, self.held[at] = self.held[at], None
        if job is not None:
            try:
                self.do(self.workers[at].work(job))
            except ConnectionError:
                return

    @rule(at=WORKERS)
    def crash(self, at: int) -> None:
        self.held[at] = None

    @rule(seconds=st.sampled_from([1, 31]))
    def wait(self, seconds: int) -> None:
        self.clock.step(seconds)

    @rule()
    def lose_an_answer(self) -> None:
        self.storage.lose_next_answer = True

    @invariant()
    def at_most_one_job_is_active(self) -> None:
        listed = self.do(self.adapter.list("c"))
        assert sum(job.state not in TERMINAL for job in listed) <= 1

    @invariant()
    def an_end_is_for_good(self) -> None:
        for job in self.do(self.adapter.list("c")):
            if job.state in TERMINAL:
                assert self.ends.setdefault(job.job_id, job) == job

    @invariant()
    def every_chunk_is_applied_once_and_in_order(self) -> None:
        for job in self.do(self.adapter.list("c")):
            applied = self.storage.applied.get(job.job_id, [])
            assert applied == list(range(job.processed_chunk_index + 1))

    @invariant()
    def the_record_is_that_of_the_newest_success(self) -> None:
        won = [known for job_id, known in self.jobs.items() if job_id in self.ends and self._succeeded(job_id)]

        async def read() -> bytes:
            return b"".join([payload async for payload in self.adapter.read("c")])

        if won:
            assert self.do(read()) == max(won, key=lambda known: known[0])[1].payload

    def _succeeded(self, job_id: str) -> bool:
        return self.ends[job_id].state == "succeeded"


TestTransfers = Transfers.TestCase
TestTransfers.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
