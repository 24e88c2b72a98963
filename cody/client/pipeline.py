"""Calls about answers of models and about the archive."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from urllib.parse import quote

import httpx2

from cody.client.api import CodyClient
from cody.client.errors import error_of_answer
from cody.contracts.responses import Response
from cody.contracts.submit import AbortAnswer, AbortRequest, SubmitAnswer, SubmitRequest
from cody.pipeline.hydrator import OnChange, hydrate
from cody.pipeline.search_text import SearchPage


class PipelineClient(CodyClient):
    """A client that may also ask models, search and export; raises as CodyClient does."""

    async def submit(self, request: SubmitRequest) -> SubmitAnswer:
        """Begin an answer; its id is `run_id`."""
        return await self._call(SubmitAnswer, "POST", "/api/v2/submit", body=request)

    async def answer(self, response_id: str, *, on_change: OnChange | None = None) -> Response:
        """The Response when it has ended; `on_change` sees it after each event."""
        return await hydrate(self._http, response_id, on_change=on_change)

    async def abort(self, response_id: str, reason: str) -> AbortAnswer:
        """End an answer; raises Conflict when it has ended."""
        path = f"/api/v2/responses/{quote(response_id, safe='')}/abort"
        return await self._call(AbortAnswer, "POST", path, body=AbortRequest(reason=reason))

    async def search(
        self, query: str, *, limit: int = 20, cursor: str | None = None, run_id: str | None = None
    ) -> SearchPage:
        """One page of what was found; `next_cursor` of one page is the `cursor` of the next."""
        given = {"q": query, "limit": str(limit), "cursor": cursor, "runId": run_id}
        params = {name: value for name, value in given.items() if value is not None}
        return await self._call(SearchPage, "GET", "/api/search", params=params)

    def export_run(self, run_id: str, format: str) -> AsyncGenerator[bytes, None]:
        """A run as a file, in pieces; raises NotFound."""
        return self._pieces(f"/api/runs/{quote(run_id, safe='')}/export", format)

    def export_thread(self, thread_id: str, format: str) -> AsyncGenerator[bytes, None]:
        """A thread as a file, in pieces; raises NotFound."""
        return self._pieces(f"/api/v2/threads/{quote(thread_id, safe='')}/export", format)

    async def _pieces(self, path: str, format: str) -> AsyncGenerator[bytes, None]:
        try:
            async with self._http.stream("GET", path, params={"format": format}) as answer:
                if answer.status_code >= 400:
                    raise error_of_answer(answer.status_code, await answer.aread())
                async for piece in answer.aiter_bytes():
                    yield piece
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
