"""The work of `cody verify`: run the verification, print what it saw."""

from __future__ import annotations

from itertools import groupby

from cody.cli import exits
from cody.cli.terminal import print_json, stderr_console, stdout_console
from cody.cli.untrusted import one_line
from cody.logs import configure_logs
from cody.pipeline.tracing import tracing
from cody.pipeline.verify import verify_pipeline
from cody.redaction import Redactor
from cody.settings import Settings, process_secrets


async def verify_and_tell(
    settings: Settings, provider: str, model: str | None, *, timeout_s: float, replay: bool | None, json: bool
) -> int:
    """0 when the row is complete, 3 when it ended otherwise."""
    level = settings.log_level
    configure_logs("warning" if level == "info" else level, redactor=Redactor(process_secrets(settings)))
    with tracing("cody-verify") as traced:
        found = await verify_pipeline(settings, provider, model, timeout_s=timeout_s, replay=replay)
    response = found.response
    code = exits.OK if response.status == "complete" else exits.RUN_FAILED
    if json:
        print_json(
            {
                "status": response.status,
                "responseId": response.id,
                "traceId": found.trace_id,
                "traced": traced,
                "replayed": found.replayed,
                "redis": found.redis,
                "archive": found.archive,
                "events": list(found.events),
                "response": response,
            }
        )
        return code
    console = stdout_console()
    if found.replayed:
        why = f"there is no {provider.upper()}_API_KEY, or --replay was given"
        stderr_console().print(f"a recorded answer was played on this machine ({why})", style="dim", soft_wrap=True)
    console.print(f"status    {response.status}")
    if response.error is not None:
        console.print(f"error     {one_line(response.error.code)}: {one_line(response.error.message, 1000)}")
    console.print(f"model     {one_line(response.model_id)} ({response.provider_id})")
    console.print(f"trace     {found.trace_id}" + ("" if traced else "  (not exported: no OTEL_* exporter is set)"))
    console.print(f"redis     {found.redis}")
    console.print(f"archive   {found.archive}")
    console.print(f"events    {_sequence(found.events)}")
    return code


def _sequence(events: tuple[str, ...]) -> str:
    """The types in order, repeated ones counted. Pure."""
    groups = [(name, len(list(group))) for name, group in groupby(events)]
    return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in groups)
