"""Calls of Cody's REST API, typed."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from cody.client.discovery import is_loopback
from cody.client.errors import ApiError, ServerUnreachable, error_of_answer
from cody.client.folder_token import FolderToken
from cody.client.stream import GIVE_UP_AFTER_S, OnLost, follow
from cody.contracts.run import (
    ControlAction,
    ControlAnswer,
    ControlRequest,
    PromptAnswer,
    RunPage,
    RunSnapshot,
    RunStatus,
    StartRunAnswer,
    StartRunRequest,
    TurnPage,
    TurnRecord,
)
from cody.contracts.run_events import RunEvent

Answer = TypeVar("Answer", bound=BaseModel)

TIMEOUT_S = 30.0


class CodyClient:
    """A connection to one server; use it as an async context.

    Every call raises ServerUnreachable when the server does not answer, the error class of the answer's code (NotFound,
    Conflict, InvalidRequest, StoreUnavailable, ...), and ApiError for what has no class.
    """

    def __init__(self, url: str, *, token: str | FolderToken | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """`url`: the base address, such as http://127.0.0.1:8899; `token` goes with each request. Connects to nothing yet."""
        bearer = {"Authorization": f"Bearer {token}"} if isinstance(token, str) and token else None
        self.url = url.rstrip("/")
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            timeout=timeout_s,
            trust_env=not is_loopback(self.url),
            headers=bearer,
            auth=token if isinstance(token, FolderToken) else None,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def start(self, request: StartRunRequest, *, idempotency_key: str | None = None) -> StartRunAnswer:
        """Queue a run. A call whose answer is lost is made once more, under the same key: never two runs."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        try:
            return await self._call(StartRunAnswer, "POST", "/api/runs/continuous", body=request, headers=headers)
        except ServerUnreachable:
            return await self._call(StartRunAnswer, "POST", "/api/runs/continuous", body=request, headers=headers)

    async def runs(
        self,
        *,
        limit: int = 20,
        status: RunStatus | None = None,
        epic_id: str | None = None,
        cursor: str | None = None,
    ) -> RunPage:
        """One page of runs, newest first; `next_cursor` of one page is the `cursor` of the next."""
        given = {"limit": str(limit), "status": status, "epicId": epic_id, "cursor": cursor}
        params = {name: value for name, value in given.items() if value is not None}
        return await self._call(RunPage, "GET", "/api/runs", params=params)

    async def snapshot(self, run_id: str) -> RunSnapshot:
        return await self._call(RunSnapshot, "GET", _path(run_id))

    async def control(self, run_id: str, action: ControlAction, reason: str | None = None) -> ControlAnswer:
        """Pause, resume or cancel; the answer has the status once it is accepted. Raises Conflict where it can't be."""
        body = ControlRequest(action=action, reason=reason)
        return await self._call(ControlAnswer, "POST", _path(run_id, "control"), body=body)

    async def turns(self, run_id: str) -> list[TurnRecord]:
        return (await self._call(TurnPage, "GET", _path(run_id, "turns"))).turns

    async def turn(self, run_id: str, turn: int) -> TurnRecord:
        return await self._call(TurnRecord, "GET", _path(run_id, "turns", str(turn)))

    async def prompt(self, run_id: str) -> PromptAnswer:
        """The prompt that the next turn would get."""
        return await self._call(PromptAnswer, "GET", _path(run_id, "prompt"))

    async def output(self, run_id: str, turn: int, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The raw output of a turn from byte `offset` on, in chunks, as far as it is written by now."""
        path = _path(run_id, "turns", str(turn), "output")
        try:
            async with self._http.stream("GET", path, params={"offset": str(offset)}) as response:
                if response.status_code >= 400:
                    raise error_of_answer(response.status_code, await response.aread())
                async for chunk in response.aiter_bytes():
                    yield chunk
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def stream(
        self,
        run_id: str,
        from_: str = "0",
        *,
        on_lost: OnLost | None = None,
        give_up_after_s: float = GIVE_UP_AFTER_S,
    ) -> AsyncGenerator[tuple[str, RunEvent], None]:
        """(stream id, event) from `from_` on (`0` = the oldest kept, `$` = only new ones) until the run has ended.

        Lost connections are taken up where they broke off; see `cody.client.stream.follow` for what it raises.
        """
        return follow(self._http, run_id, from_, on_lost=on_lost, give_up_after_s=give_up_after_s)

    async def _call(
        self,
        model: type[Answer],
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: BaseModel | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        content = None if body is None else body.model_dump_json(by_alias=True).encode()
        all_headers = dict(headers or {}) | ({} if content is None else {"Content-Type": "application/json"})
        try:
            response = await self._http.request(method, path, params=params, content=content, headers=all_headers)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        if response.status_code >= 400:
            raise error_of_answer(response.status_code, response.content)
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ApiError(
                f"{method} {path}: the answer is not a {model.__name__} ({where}: {problem['msg']}); "
                "is the server another version of Cody?",
                status=response.status_code,
            ) from error

    def _unreachable(self, error: httpx2.TransportError) -> ServerUnreachable:
        why = str(error) or type(error).__name__
        return ServerUnreachable(
            f"no Cody server answers at {self.url} ({why}): start one with `cody serve`, or just `cody run`"
        )


def _path(run_id: str, *parts: str) -> str:
    """A path below a run; ids come from people, so each part is one segment."""
    return "/".join(["/api/runs", quote(run_id, safe=""), *parts])
