"""Asking a model: the request checked, its Response begun, and the answer published in the background."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from structlog import get_logger

from cody.contracts.responses import FunctionCallOutput, OutputItem
from cody.contracts.stream_events import ResponseError, ResponseStart
from cody.contracts.submit import SubmitAnswer, SubmitRequest
from cody.errors import CodyError, Forbidden, InvalidRequest, StoreUnavailable
from cody.pipeline.adapters.base import whole_item
from cody.pipeline.model_request import ModelRequest, Tool, user_message
from cody.pipeline.problems import INTERNAL_ERROR, problem
from cody.pipeline.providers.driving import Provider
from cody.pipeline.providers.registry import PROVIDER_IDS, open_provider
from cody.pipeline.providers.tool_loop import OpenToolbox, Toolbox, stream_with_tools
from cody.pipeline.publisher import Publication, Publisher
from cody.pipeline.tracing import event_trace, span
from cody.redaction import Redactor
from cody.settings import Settings
from cody.wall_clock import now_ms

if TYPE_CHECKING:
    from cody.pipeline.archive import Archive

log = get_logger()

BEGIN_DEADLINE_S = 5.0
SERVER_STOPPED = "server_stopped"


class Submissions:
    """The answers that this process asks for. Close it with `aclose`."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        archive: Callable[[], Awaitable[Archive]],
        open_toolbox: OpenToolbox | None,
        redactor: Redactor,
    ) -> None:
        """`open_toolbox`: who carries out tools; None = nobody here."""
        self._settings = settings
        self._publisher = publisher
        self._archive = archive
        self._open_toolbox = open_toolbox
        self._redactor = redactor
        self._providers: dict[str, Provider] = {}
        self._opening = asyncio.Lock()
        self._tasks: dict[asyncio.Task[None], Publication] = {}

    @property
    def count(self) -> int:
        """Answers that are being made."""
        return len(self._tasks)

    async def submit(self, request: SubmitRequest, *, traceparent: str | None = None) -> SubmitAnswer:
        """Begin a Response and answer at once. Raises InvalidRequest, Forbidden, StoreUnavailable."""
        key = self._key_of(request.provider_id)
        if self._settings.models and request.model not in self._settings.models:
            allowed = ", ".join(self._settings.models)
            raise Forbidden(f"model: {request.model} is not among CODY_MODELS ({allowed})", details={"field": "model"})
        toolbox = await self._toolbox_of(request)
        opening = ResponseStart(
            response_id=str(uuid.uuid4()),
            turn_id=request.turn_id or str(uuid.uuid4()),
            thread_id=request.thread_id or str(uuid.uuid4()),
            agent_id=request.agent_id,
            model_id=request.model,
            provider_id=request.provider_id,
            created_at=now_ms(),
        )
        publication = self._publisher.begin(opening, trace=event_trace(traceparent))
        said = _said(request, opening)
        publication.say(*(payload for item in said for payload in whole_item(item)))
        await _begun(publication)
        task = asyncio.create_task(
            self._answer(publication, request, opening, said, key, toolbox), name=f"answer {opening.response_id}"
        )
        self._tasks[task] = publication
        task.add_done_callback(self._tasks.pop)
        publication.on_taken_away = task.cancel
        log.info("response.submitted", response_id=opening.response_id, provider=request.provider_id)
        return SubmitAnswer(run_id=opening.response_id, thread_id=opening.thread_id, turn_id=opening.turn_id)

    async def aclose(self) -> None:
        """End what goes on: each such Response ends as an error that says so."""
        tasks = dict(self._tasks)
        for task, publication in tasks.items():
            publication.on_taken_away = None
            message = "the server was stopped in the midst of the answer"
            _fail(publication, SERVER_STOPPED, message, retryable=True)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for provider in self._providers.values():
            await provider.aclose()

    def _key_of(self, provider_id: str) -> str:
        keys = {
            "openai": ("OPENAI_API_KEY", self._settings.openai_api_key),
            "anthropic": ("ANTHROPIC_API_KEY", self._settings.anthropic_api_key),
        }
        if provider_id not in keys:
            known = ", ".join(PROVIDER_IDS)
            raise InvalidRequest(
                f"providerId: no provider {provider_id!r} (known: {known})", details={"field": "providerId"}
            )
        name, key = keys[provider_id]
        if not (key or "").strip():
            raise InvalidRequest(
                f"providerId: {provider_id} needs a key: set {name} where the server is started",
                details={"field": "providerId", "variable": name},
            )
        assert key is not None
        return key

    async def _answer(
        self,
        publication: Publication,
        request: SubmitRequest,
        opening: ResponseStart,
        said: Sequence[OutputItem],
        key: str,
        toolbox: Toolbox | None,
    ) -> None:
        try:
            earlier = await self._history(opening)
            asked = _model_request(request, opening, [*earlier, *_outputs(said)])
            provider = await self._provider(opening.provider_id, key)
            with span(
                "model.answer", provider=opening.provider_id, model=opening.model_id, response_id=opening.response_id
            ):
                stream = provider.stream(asked) if toolbox is None else stream_with_tools(provider, asked, toolbox)
                async with aclosing(stream) as payloads:
                    async for payload in payloads:
                        if not isinstance(payload, ResponseStart):
                            publication.say(payload)
                        await publication.room()
                await publication.written()
        except CodyError as error:
            _fail(publication, error.code, error.message, retryable=isinstance(error, StoreUnavailable))
        except Exception as error:
            # The boundary of an answer: whatever happened, its readers must see it end.
            log.exception("response.failed", response_id=opening.response_id)
            _fail(publication, INTERNAL_ERROR, f"Cody failed: {type(error).__name__}", retryable=False)

    async def _toolbox_of(self, request: SubmitRequest) -> Toolbox | None:
        """The tools that are Cody's to carry out; None = no such tool was named."""
        if not request.own_tools or request.working_dir is None:
            return None
        if self._open_toolbox is None:
            raise InvalidRequest("tools: nobody carries out tools here; define your own", details={"field": "tools"})
        return await asyncio.to_thread(
            self._open_toolbox,
            request.working_dir,
            self._settings,
            sandbox=request.sandbox or "workspace-write",
            allowed=request.own_tools,
            redactor=self._redactor,
        )

    async def _history(self, opening: ResponseStart) -> list[OutputItem]:
        archive = await self._archive()
        # Here, not above: whoever asks for the archive has paid for SQLAlchemy already.
        from cody.pipeline.threads import history

        return await history(self._publisher.store, archive, opening.thread_id, opening.response_id)

    async def _provider(self, provider_id: str, key: str) -> Provider:
        async with self._opening:
            if provider_id not in self._providers:
                urls = {"openai": self._settings.openai_base_url, "anthropic": self._settings.anthropic_base_url}
                self._providers[provider_id] = await open_provider(provider_id, api_key=key, base_url=urls[provider_id])
            return self._providers[provider_id]


async def _begun(publication: Publication) -> None:
    """The Response exists in Redis: only then is it told to the client. Raises StoreUnavailable."""
    try:
        async with asyncio.timeout(BEGIN_DEADLINE_S):
            await publication.written()
    except TimeoutError:
        publication.take_away("could not be begun")
        raise StoreUnavailable(f"can't begin a response: Redis did not answer for {BEGIN_DEADLINE_S:g} s") from None


def _said(request: SubmitRequest, opening: ResponseStart) -> list[OutputItem]:
    """What the user's side says in this turn; the prompt last."""
    said: list[OutputItem] = [
        FunctionCallOutput(
            id=f"{opening.turn_id}_output_{number}",
            origin="user",
            call_id=output.call_id,
            output=output.output,
            success=output.success,
        )
        for number, output in enumerate(request.tool_outputs, start=1)
    ]
    if request.prompt is not None:
        said.append(user_message(opening.turn_id, request.prompt))
    return said


def _outputs(said: Sequence[OutputItem]) -> list[OutputItem]:
    return [item for item in said if isinstance(item, FunctionCallOutput)]


def _model_request(request: SubmitRequest, opening: ResponseStart, history: Sequence[OutputItem]) -> ModelRequest:
    return ModelRequest(
        opening=opening,
        prompt=request.prompt,
        history=tuple(history),
        instructions=request.instructions,
        tools=tuple(
            Tool(name=tool.name, description=tool.description, parameters=tool.parameters)
            for tool in request.definitions
        ),
        max_output_tokens=request.max_output_tokens,
        reasoning_effort=request.reasoning_effort,
    )


def _fail(publication: Publication, code: str, message: str, *, retryable: bool) -> None:
    error = problem(code, message, retryable=retryable)
    publication.say(ResponseError(response_id=publication.response_id, error=error))
