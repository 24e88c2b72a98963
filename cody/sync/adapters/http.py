"""The sync engine of another Cody, over its HTTP API. Besides pydantic it needs httpx2.

Every call is made again when no answer comes: all of them may be repeated (a second `start` only leaves an empty source
behind). What the server refuses is raised at once.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from cody.sync.contracts import TERMINAL, JobSnapshot, Manifest, SourceSnapshot
from cody.sync.errors import SyncError, SyncErrorCode, is_sync_error_code
from cody.sync.policy import Policy, id_fault, retry_delay_s
from cody.sync.wire import MAX_WAIT_S, AppendAnswer, JobAnswer, JobsAnswer, SourceAnswer, camel_keys

TIMEOUT_S = 30.0
SEAL_TIMEOUT_S = 900.0
"""The server hashes the whole record before it answers."""
GIVE_UP_AFTER_S = 120.0
LATE_S = 5.0
"""An answer that was asked for until a deadline may come so long after it: there is the way back."""
PACE = Policy(retry_base_s=0.2, retry_cap_s=10.0)
AWAY = frozenset({429, 502, 503, 504})
"""A server that is restarting, whose database is away, or that asks for patience: it comes back."""
UNKNOWN_PATH = "not_found"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Answer = TypeVar("Answer", bound=BaseModel)
OnLost = Callable[[str | None], None]
"""Called with the reason when the server does not answer, and with None when it does again."""


class AccessDenied(SyncError):
    """The server does not take this token, or the token may not do this: no waiting helps."""

    def __init__(self, message: str) -> None:
        super().__init__("backend_unavailable", message)

    @property
    def retryable(self) -> bool:
        return False


class HttpAdapter:
    """An Adapter, and Readable. Use it as an async context, or `aclose` it."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        jitter: Callable[[], float] = random.random,
        on_lost: OnLost | None = None,
    ) -> None:
        """`url`: the base address of a Cody server; `token` goes with each request. Connects to nothing yet.

        A call that gets no answer is made again for `give_up_after_s` seconds, and then raises backend_unavailable.
        """
        self.url = url.rstrip("/")
        host = httpx2.URL(self.url).host
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            timeout=timeout_s,
            trust_env=host not in LOOPBACK,
            headers={"Authorization": f"Bearer {token}"} if token else None,
        )
        self._give_up_after_s = give_up_after_s
        self._jitter = jitter
        self._on_lost = on_lost or (lambda reason: None)
        self._is_lost = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def start(self, conversation_id: str, thread_id: str | None = None) -> SourceSnapshot:
        """See Adapter.start."""
        body = {"conversationId": conversation_id} | ({} if thread_id is None else {"threadId": thread_id})
        answer = await self._call(SourceAnswer, "POST", "/api/sync/sources", body=body, otherwise="source_invalid")
        return SourceSnapshot.model_validate(answer.model_dump())

    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        """See Adapter.append. False also when the chunk was new but the answer to its first sending was lost."""
        body = {
            "index": index,
            "payload": base64.b64encode(payload).decode(),
            "messageCount": message_count,
            "byteSize": byte_size,
        }
        path = f"{_source_path(source_id)}/chunks"
        answer = await self._call(
            AppendAnswer, "POST", path, body=body, missing="source_not_found", otherwise="source_invalid"
        )
        return answer.appended

    async def seal(
        self,
        source_id: str,
        expected_manifest: Manifest | Mapping[str, object],
        expected_checksum: str,
        expected_message_count: int | None = None,
    ) -> JobSnapshot:
        """See Adapter.seal."""
        manifest = camel_keys(expected_manifest) if isinstance(expected_manifest, Manifest) else dict(expected_manifest)
        body: dict[str, Any] = {"manifest": manifest, "checksum": expected_checksum}
        if expected_message_count is not None:
            body["expectedMessageCount"] = expected_message_count
        path = f"{_source_path(source_id)}/seal"
        return _job(
            await self._call(
                JobAnswer,
                "POST",
                path,
                body=body,
                missing="source_not_found",
                otherwise="manifest_invalid",
                timeout_s=SEAL_TIMEOUT_S,
            )
        )

    async def get(self, job_id: str) -> JobSnapshot:
        """See Adapter.get."""
        return await self._job(job_id, wait_s=0.0)

    async def list(self, conversation_id: str) -> Sequence[JobSnapshot]:
        """See Adapter.list."""
        if id_fault("conversation_id", conversation_id) is not None:
            return []
        params = {"conversationId": conversation_id}
        answer = await self._call(JobsAnswer, "GET", "/api/sync/jobs", params=params)
        return [_job(job) for job in answer.jobs]

    async def cancel(self, job_id: str) -> JobSnapshot:
        """See Adapter.cancel."""
        path = f"{_job_path(job_id)}/cancel"
        return _job(await self._call(JobAnswer, "POST", path, body={}, missing="job_not_found"))

    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        """See Adapter.wait_for_terminal. A server that does not answer until then is a timeout too."""
        if timeout is None:
            return await self._terminal(job_id, None)
        deadline = asyncio.get_running_loop().time() + max(timeout, 0.0)
        try:
            async with asyncio.timeout_at(deadline + LATE_S):
                job = await self._terminal(job_id, deadline)
        except TimeoutError:
            raise SyncError("timeout", f"job {job_id}: no Cody server answered at {self.url} in time") from None
        if job.state not in TERMINAL:
            done = f"{job.processed_chunk_index + 1} of {job.total_chunks} chunks"
            raise SyncError("timeout", f"job {job_id} is still {job.state} after {timeout} s ({done})")
        return job

    async def read(self, conversation_id: str) -> AsyncIterator[bytes]:
        """The verified record, in pieces; raises source_not_found, and backend_unavailable when it breaks off."""
        if id_fault("conversation_id", conversation_id) is not None:
            raise SyncError("source_not_found", "no conversation has such an id")
        params = {"conversationId": conversation_id}
        try:
            async with self._http.stream("GET", "/api/sync/record", params=params) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, await response.aread(), "source_not_found", "source_not_found")
                async for piece in response.aiter_raw():
                    yield piece
        except httpx2.RequestError as failure:
            raise self._unreachable(failure) from failure

    async def _terminal(self, job_id: str, deadline: float | None) -> JobSnapshot:
        """The job once it has ended, or as it is at the deadline (by the event loop's clock)."""
        loop, wait_s = asyncio.get_running_loop(), 0.0
        while True:
            job = await self._job(job_id, wait_s=wait_s, deadline=deadline)
            left_s = MAX_WAIT_S if deadline is None else deadline - loop.time()
            if job.state in TERMINAL or left_s <= 0:
                return job
            wait_s = min(left_s, MAX_WAIT_S)

    async def _job(self, job_id: str, *, wait_s: float, deadline: float | None = None) -> JobSnapshot:
        params = {"waitMs": str(round(wait_s * 1000))} if wait_s else {}
        path = _job_path(job_id)
        return _job(
            await self._call(
                JobAnswer,
                "GET",
                path,
                params=params,
                missing="job_not_found",
                timeout_s=wait_s + TIMEOUT_S,
                deadline=deadline,
            )
        )

    async def _call(
        self,
        model: type[Answer],
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        missing: SyncErrorCode = "source_not_found",
        otherwise: SyncErrorCode = "backend_unavailable",
        timeout_s: float | None = None,
        deadline: float | None = None,
    ) -> Answer:
        """`missing`, `otherwise`: what the server's own not_found and its other refusals are in canonical codes.

        Raises timeout when it would be made again after the `deadline` (by the event loop's clock).
        """
        options: dict[str, Any] = {"params": params}
        if body is not None:
            options |= {"content": json.dumps(body).encode(), "headers": {"Content-Type": "application/json"}}
        if timeout_s is not None:
            options["timeout"] = httpx2.Timeout(TIMEOUT_S, read=timeout_s)
        loop = asyncio.get_running_loop()
        give_up_at, failures = loop.time() + self._give_up_after_s, 0
        while True:
            wait_s = 0.0
            try:
                response = await self._http.request(method, path, **options)
                if response.status_code not in AWAY:
                    break
                error = _refusal(response.status_code, response.content, missing, otherwise)
                wait_s = _retry_after_s(response)
            except httpx2.RequestError as failure:
                error = self._unreachable(failure)
            failures += 1
            retry_at = loop.time() + max(wait_s, retry_delay_s(failures, PACE, self._jitter))
            if retry_at > give_up_at and (deadline is None or give_up_at < deadline):
                raise error
            self._tell_lost(error.message)
            if deadline is not None and retry_at >= deadline:
                await asyncio.sleep(deadline - loop.time())
                raise SyncError("timeout", f"it did not answer in time: {error.message}")
            await asyncio.sleep(retry_at - loop.time())
        self._tell_lost(None)
        if not 200 <= response.status_code < 300:
            raise _refusal(response.status_code, response.content, missing, otherwise)
        try:
            return model.model_validate_json(response.content)
        except ValidationError:
            told = f"{method} {path}: what answers at {self.url} is not the sync API of a Cody"
            raise SyncError("backend_unavailable", told) from None

    def _tell_lost(self, reason: str | None) -> None:
        """Each reason, and once that it answers again: perhaps in another call than the one that was not answered."""
        if reason is not None or self._is_lost:
            self._is_lost = reason is not None
            self._on_lost(reason)

    def _unreachable(self, failure: httpx2.RequestError) -> SyncError:
        why = str(failure) or type(failure).__name__
        return SyncError("backend_unavailable", f"no Cody server answers at {self.url} ({why})")


def _source_path(source_id: str) -> str:
    return f"/api/sync/sources/{_segment(source_id, 'source_not_found')}"


def _job_path(job_id: str) -> str:
    return f"/api/sync/jobs/{_segment(job_id, 'job_not_found')}"


def _segment(given: str, missing: SyncErrorCode) -> str:
    """An id in a path; raises `missing` for what no server would find: it can't be written there."""
    if id_fault("id", given) is not None or given in (".", ".."):
        raise SyncError(missing, f"nothing has the id {given[:64]!r}")
    return quote(given, safe="")


def _job(answer: JobAnswer) -> JobSnapshot:
    return JobSnapshot.model_validate(answer.model_dump())


def _retry_after_s(response: httpx2.Response) -> float:
    told = response.headers.get("retry-after", "")
    return min(float(told), 60.0) if told.isdecimal() else 0.0


def _refusal(status: int, body: bytes, missing: SyncErrorCode, otherwise: SyncErrorCode) -> SyncError:
    """The canonical error for an answer that is none of the sync's own, or that tells one."""
    try:
        detail = json.loads(body)["error"]
        code, message = str(detail["code"]), str(detail["message"])
    except (ValueError, KeyError, TypeError):
        return SyncError("backend_unavailable", f"HTTP {status}, and not in the way Cody answers")
    if is_sync_error_code(code):
        return SyncError(code, message)
    if status in (401, 403):
        return AccessDenied(f"the server refuses: {message}")
    if code == UNKNOWN_PATH:
        return SyncError(missing, message)
    return SyncError(otherwise if status < 500 and status != 429 else "backend_unavailable", message)
