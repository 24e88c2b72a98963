"""What a scenario plays with: the adapter, called with a deadline on every call and a transcript of every answer."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

from cody.sync.conformance.faults import FaultyStorage
from cody.sync.contracts import TERMINAL, Chunk, JobSnapshot, JobState, Manifest, SourceSnapshot
from cody.sync.errors import SyncErrorCode, is_sync_error_code
from cody.sync.policy import ManifestBuilder
from cody.sync.worker import Bench

T = TypeVar("T")

TRANSCRIPT_CALLS = 12
GRACE_S = 0.2
"""For a cancelled call to end; one that ignores its cancellation is left behind."""
SLICES = 10
"""A time is waited for in so many parts: a machine that stands still for long takes one of them, not all."""


class ContractBroken(AssertionError):
    """The adapter did what the contract does not allow, or did not do what it promises."""


class CallRefused(Exception):
    """The adapter refused a call with a canonical error."""

    def __init__(self, code: SyncErrorCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(slots=True)
class Patience:
    """How long a call may take. Once one has hung there is less: a broken adapter is reported in seconds."""

    call_s: float = 5.0
    hangs: Counter[str] = field(default_factory=Counter)

    def lost(self, what: str) -> None:
        """This took too long."""
        self.hangs[what] += 1
        self.call_s = min(self.call_s, 0.3)

    def ended(self, what: str) -> bool:
        """True when it took too long twice: it is not tried again."""
        return self.hangs[what] >= 2


async def is_done(task: asyncio.Future[T], within_s: float) -> bool:
    """Whether it ends in this time, for which the event loop has to be at work."""
    for _ in range(SLICES):
        await asyncio.wait({task}, timeout=within_s / SLICES)
        if task.done():
            return True
    return False


class Record:
    """Chunks of a made-up conversation, with all that a seal must be told."""

    def __init__(self, label: str, chunks: int = 4) -> None:
        self.chunks = tuple(_chunk(label, index) for index in range(chunks))
        builder = ManifestBuilder()
        for chunk in self.chunks:
            builder.add(chunk)
        self.manifest: Manifest = builder.manifest
        self.checksum: str = builder.checksum
        self.payload = b"".join(chunk.payload for chunk in self.chunks)


def _chunk(label: str, index: int) -> Chunk:
    # Every byte value, a cut inside a UTF-8 character, and one chunk without anything in it.
    payload = b"" if index == 2 else f"{label} {index} \u00e9".encode()[: -(index % 2) or None] + bytes(range(256))
    return Chunk(index=index, payload=payload, message_count=index, byte_size=len(payload))


class Kit:
    """The adapter under test. Its methods raise ContractBroken, or CallRefused for a canonical error."""

    def __init__(self, adapter: object, patience: Patience) -> None:
        self.adapter = adapter
        self.patience = patience
        self.transcript: deque[str] = deque(maxlen=TRANSCRIPT_CALLS)
        bench = getattr(adapter, "bench", None)
        self._bench = bench if isinstance(bench, Bench) else None

    @property
    def has_bench(self) -> bool:
        """True when faults can be injected."""
        return self._bench is not None

    @property
    def bench(self) -> Bench:
        """What the adapter's workers work with; only for scenarios that need one."""
        if self._bench is None:
            raise ContractBroken("the adapter shows no bench")
        return self._bench

    def inject(self) -> FaultyStorage:
        """Put a storage with faults in front of the adapter's own."""
        faulty = FaultyStorage(self.bench.storage)
        self.bench.storage = faulty
        return faulty

    def new_conversation(self) -> str:
        """An id that nobody has used."""
        return f"conformance-{uuid4().hex}"

    async def start(self, conversation_id: str, thread_id: str | None = None) -> SourceSnapshot:
        """The adapter's `start`."""
        given = {} if thread_id is None else {"thread_id": thread_id}
        return await self._call(SourceSnapshot, "start", conversation_id, **given)

    async def append(self, source_id: str, chunk: Chunk) -> bool:
        """The adapter's `append`."""
        return await self._call(
            bool, "append", source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size
        )

    async def seal(
        self, source_id: str, manifest: Manifest, checksum: str, expected_message_count: int | None = None
    ) -> JobSnapshot:
        """The adapter's `seal`."""
        given = {} if expected_message_count is None else {"expected_message_count": expected_message_count}
        return await self._call(JobSnapshot, "seal", source_id, manifest, checksum, **given)

    async def get(self, job_id: str) -> JobSnapshot:
        """The adapter's `get`."""
        return await self._call(JobSnapshot, "get", job_id)

    async def list(self, conversation_id: str) -> Sequence[JobSnapshot]:
        """The adapter's `list`."""
        jobs: Sequence[JobSnapshot] = await self._call(Sequence, "list", conversation_id)
        for job in jobs:
            self.check(isinstance(job, JobSnapshot), f"list answered {job!r} among its jobs")
        return jobs

    async def cancel(self, job_id: str) -> JobSnapshot:
        """The adapter's `cancel`."""
        return await self._call(JobSnapshot, "cancel", job_id)

    async def wait(self, job_id: str, timeout_s: float | None = None) -> JobSnapshot:
        """The adapter's `wait_for_terminal`; without a timeout, as long as the kit has patience."""
        timeout = self.patience.call_s if timeout_s is None else timeout_s
        return await self._call(JobSnapshot, "wait_for_terminal", job_id, timeout=timeout)

    async def collected(self, record: Record, conversation_id: str | None = None) -> SourceSnapshot:
        """A source with every chunk of the record, not sealed."""
        source = await self.start(conversation_id or self.new_conversation())
        for chunk in record.chunks:
            self.check(await self.append(source.source_id, chunk), f"append of the new chunk {chunk.index} said False")
        return source

    async def sealed(self, record: Record, conversation_id: str | None = None) -> JobSnapshot:
        """The job of a record, just sealed."""
        source = await self.collected(record, conversation_id)
        return await self.seal(source.source_id, record.manifest, record.checksum)

    async def ended(self, job_id: str) -> JobSnapshot:
        """The job once it has ended, as `wait_for_terminal` and `get` both say."""
        hopeless = self.patience.ended("the end of a job")
        try:
            job = await self.wait(job_id, 0.05 if hopeless else None)
        except CallRefused as refused:
            if refused.code == "timeout":
                self.patience.lost("the end of a job")
            raise ContractBroken(f"job {job_id} did not end: {refused}") from None
        self.check(job.state in TERMINAL, f"wait_for_terminal answered a job that is {job.state}")
        self.check(job.job_id == job_id, f"wait_for_terminal answered job {job.job_id} in place of {job_id}")
        self.same(await self.get(job_id), job, "what get says after wait_for_terminal")
        return job

    async def succeeded(self, job_id: str) -> JobSnapshot:
        """The job, which must end in success."""
        job = await self.ended(job_id)
        self.check(job.state == "succeeded", f"job {job_id} ended {job.state}: {job.last_error}")
        return job

    async def in_state(self, job_id: str, *states: JobState) -> JobSnapshot:
        """The job as soon as it is in one of these states."""
        return await self._seen(job_id, lambda job: job.state in states, f"expected {' or '.join(states)}")

    async def left(self, before: JobSnapshot) -> JobSnapshot:
        """The job as soon as it is not as it was."""
        return await self._seen(before.job_id, lambda job: job != before, "it was to go on")

    async def _seen(self, job_id: str, wanted: Callable[[JobSnapshot], bool], why: str) -> JobSnapshot:
        deadline = asyncio.get_running_loop().time() + self.patience.call_s
        while not wanted(job := await self.get(job_id)):
            if asyncio.get_running_loop().time() > deadline:
                self.patience.lost("a state of a job")
                raise ContractBroken(f"job {job_id} stays {job.state}; {why}")
            await asyncio.sleep(0.002)
        return job

    async def record_is(self, conversation_id: str, record: Record | None) -> None:
        """What can be read back is this record, or none; an adapter without `read` is not asked."""
        read = getattr(self.adapter, "read", None)
        if read is None:
            return

        async def whole() -> bytes:
            return b"".join([payload async for payload in read(conversation_id)])

        if record is None:
            await self.refused("source_not_found", self._answer("read", whole(), "read"))
            return
        payload = await self._answer("read", whole(), "read")
        self.check(
            payload == record.payload,
            f"read gives {len(payload)} bytes that are not the {len(record.payload)} of the record",
        )

    async def refused(self, code: SyncErrorCode, call: Awaitable[object]) -> CallRefused:
        """The refusal of a call that must be refused with this code."""
        try:
            answer = await call
        except CallRefused as refused:
            self.check(refused.code == code, f"refused with {refused}; expected {code}")
            self.check(bool(refused.message), f"{code} says nothing about what is wrong")
            return refused
        raise ContractBroken(f"not refused: answered {_short(answer)}; expected {code}")

    async def reached(self, event: asyncio.Event, what: str) -> None:
        """Wait for an event of the kit's own."""
        try:
            async with asyncio.timeout(self.patience.call_s):
                await event.wait()
        except TimeoutError:
            self.patience.lost(what)
            raise ContractBroken(f"did not happen within {self.patience.call_s} s: {what}") from None

    def check(self, kept: bool, broken: str) -> None:
        """Raise ContractBroken with what is broken, unless it is kept."""
        if not kept:
            raise ContractBroken(broken)

    def same(self, found: object, expected: object, what: str) -> None:
        """Raise ContractBroken unless both are equal."""
        self.check(found == expected, f"{what}: {found!r}; expected {expected!r}")

    async def _call(self, kind: Callable[..., T], method: str, *args: object, **given: object) -> T:
        called = f"{method}({', '.join([*map(_short, args), *(f'{k}={v!r}' for k, v in given.items())])})"
        function = getattr(self.adapter, method, None)
        if function is None:
            raise ContractBroken(f"the adapter has no method {method}")
        if self.patience.ended(method):
            raise ContractBroken(f"{called} was not tried: {method} did not answer earlier, in other scenarios too")
        try:
            awaited = function(*args, **given)
        except Exception as failure:
            raise self._failed(called, failure) from failure
        self.check(isinstance(awaited, Awaitable), f"{called} is not async: it answered {_short(awaited)}")
        answer = await self._answer(called, awaited, method)
        self.check(
            isinstance(answer, kind),  # type: ignore[arg-type]  # kind is one of the contract's classes
            f"{called} answered {_short(answer)}, no {getattr(kind, '__name__', kind)}",
        )
        return answer  # type: ignore[no-any-return]

    async def _answer(self, called: str, awaited: Awaitable[T], method: str) -> T:
        task = asyncio.ensure_future(awaited)
        # A timeout of the call's own must have the time to be told.
        if not await is_done(task, self.patience.call_s + GRACE_S):
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE_S)
            self.patience.lost(method)
            self.transcript.append(f"{called} -> hangs")
            raise ContractBroken(f"{called} did not answer")
        if task.cancelled():
            raise ContractBroken(f"{called} was cancelled from inside")
        failure = task.exception()
        if failure is not None:
            raise self._failed(called, failure) from failure
        answer = task.result()
        self.transcript.append(f"{called} -> {_short(answer)}")
        return answer

    def _failed(self, called: str, failure: BaseException) -> Exception:
        self.transcript.append(f"{called} -> raised {failure!r}")
        code = getattr(failure, "code", None)
        if is_sync_error_code(code):
            return CallRefused(code, str(getattr(failure, "message", failure)))
        return ContractBroken(f"{called} raised {failure!r}: callers see canonical errors only")


def _short(value: object) -> str:
    if isinstance(value, JobSnapshot):
        done = f"{value.processed_chunk_index + 1}/{value.total_chunks}"
        return f"<job {value.job_id[:8]} {value.state} {done} retries={value.retry_count}>"
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:60]}...{said[-15:]}"
