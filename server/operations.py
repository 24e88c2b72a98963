"""What the API's document says of each route: its parameters, its body, its answers. Data, read by `server.openapi`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel

from cody.contracts import audit, epic_log, health, run
from cody.contracts.wire import Wire
from cody.proof import MAX_NONCE

Schema = Mapping[str, Any]

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query, or a header; both may always be left out unless `required`."""

    name: str
    schema: Schema
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes with one status: a contract, text of another type, or nothing."""

    description: str
    model: type[BaseModel] | None = None
    """As JSON."""
    media_type: str | None = None
    """Of what has no model; None there = there is no body."""
    or_types: tuple[str, ...] = ()
    """Other types that it may have instead."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names and descriptions."""
    links: tuple[str, ...] = ()
    """Operations that take what this answer names: a run's id, or a token's name."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `errors`: the statuses that this one may refuse with, beside those of every operation."""

    id: str
    summary: str
    answers: Mapping[int, Answer]
    body: type[Wire] | None = None
    body_optional: bool = False
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()


PATH_PARAMETERS: Mapping[str, Schema] = {
    "run_id": {"type": "string", "format": "uuid"},
    "number": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "thread_id": {"type": "string", "pattern": "^[0-9A-Za-z][0-9A-Za-z_.:-]{0,127}$"},
    "log": {"type": "string", "enum": list(get_args(epic_log.LogName))},
    "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
    "source_id": {"type": "string", "pattern": "^[0-9A-Za-z_-]{1,128}$"},
    "job_id": {"type": "string", "pattern": "^[0-9A-Za-z_-]{1,128}$"},
}
"""By their names in the routes; on the wire in camelCase."""

OF_A_RUN = ("getRun", "getRunStatus", "listTurns", "getNextPrompt", "controlRun", "pauseRun", "resumeRun", "cancelRun")
STREAM_POSITION = "^(0|\\$|[0-9]{1,18}(-[0-9]{1,18})?)$"
HEADER_POSITION = STREAM_POSITION.replace(")$", ")?$")
HEADER_TEXT = "^[!-~]([ -~]*[!-~])?$"

START = Operation(
    "startRun",
    "Start a run; it works in the background.",
    {
        202: Answer(
            "The run is recorded.", run.StartRunAnswer, headers={"Location": "The run's address."}, links=OF_A_RUN
        )
    },
    body=run.StartRunRequest,
    headers=(
        Parameter(
            "Idempotency-Key",
            {"type": "string", "pattern": HEADER_TEXT, "minLength": 1, "maxLength": 255},
            "The same key with the same request gives the same run, within a day.",
        ),
    ),
    errors=(409,),
)
PREVIEW = Operation(
    "previewPrompt",
    "The prompt that such a run would begin with; starts nothing.",
    {200: Answer("The prompt.", run.PreviewAnswer)},
    body=run.StartRunRequest,
)
LIST = Operation(
    "listRuns",
    "Runs, newest first.",
    {200: Answer("One page.", run.RunPage)},
    query=(
        Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "How many."),
        Parameter("status", {"type": "string", "enum": list(get_args(run.RunStatus))}, "Only runs in this state."),
        Parameter("epicId", {"type": "string", "minLength": 1, "maxLength": 512}, "Only runs of this epic."),
        Parameter("cursor", {"type": "string", "minLength": 1, "maxLength": 512}, "The nextCursor of the page before."),
    ),
)
SNAPSHOT = Operation("getRun", "All that is known of a run.", {200: Answer("The run.", run.RunSnapshot)}, errors=(404,))
STATUS = Operation("getRunStatus", "The same as getRun.", {200: Answer("The run.", run.RunSnapshot)}, errors=(404,))
CONTROL = Operation(
    "controlRun",
    "Pause, resume or cancel a run.",
    {200: Answer("It is accepted; the status that the run has now.", run.ControlAnswer)},
    body=run.ControlRequest,
    errors=(404, 409),
)


def control_by_path(action: run.ControlAction) -> Operation:
    """`POST .../pause`, `/resume`, `/cancel`."""
    return Operation(
        f"{action}Run",
        f"{action.capitalize()} a run.",
        {200: Answer("It is accepted; the status that the run has now.", run.ControlAnswer)},
        body=run.ReasonRequest,
        body_optional=True,
        errors=(404, 409),
    )


STREAM = Operation(
    "streamRun",
    "The run's events as they come, to its end, as Server-Sent Events.",
    {200: Answer("Events; after the last one, `data: [DONE]`.", media_type="text/event-stream")},
    query=(
        Parameter(
            "from",
            {"type": "string", "pattern": STREAM_POSITION, "default": "0"},
            "`0` = the oldest kept, `$` = only new ones, or the id of the last one that was seen.",
        ),
    ),
    headers=(
        Parameter(
            "Last-Event-ID",
            {"type": "string", "pattern": HEADER_POSITION},
            "As `from`, and before it: what browsers send. Empty is as if it was not there.",
        ),
    ),
    errors=(404, 410),
)
TURNS = Operation("listTurns", "The run's turns, in order.", {200: Answer("All turns.", run.TurnPage)}, errors=(404,))
TURN = Operation("getTurn", "One turn.", {200: Answer("The turn.", run.TurnRecord)}, errors=(404,))


def _turn_file(operation_id: str, summary: str) -> Operation:
    return Operation(
        operation_id,
        summary,
        {
            200: Answer("From the offset on.", media_type="text/plain"),
            206: Answer("The part that a Range header asks for.", media_type="text/plain"),
        },
        query=(
            Parameter(
                "offset", {"type": "integer", "minimum": 0, "maximum": 2**63 - 1, "default": 0}, "The first byte."
            ),
        ),
        errors=(404, 416),
    )


OUTPUT = _turn_file("getTurnOutput", "What the agent wrote in a turn, raw, as far as it is written by now.")
TURN_PROMPT = _turn_file("getTurnPrompt", "The prompt that a turn got, without secrets.")
EPIC_LOG = Operation(
    "getEpicLog",
    "A log of the run's epic as it is now: the last MiB of it, without secrets.",
    {200: Answer("The log.", epic_log.EpicLog)},
    errors=(404,),
)
PROMPT = Operation(
    "getNextPrompt",
    "The prompt that the next turn would get.",
    {200: Answer("The prompt.", run.PromptAnswer)},
    errors=(404, 409),
)

ALIVE = Operation(
    "isAlive",
    "Whether the process answers; asks nobody.",
    {200: Answer("It does.", health.Alive)},
    query=(
        Parameter(
            "nonce",
            {"type": "string", "minLength": 1, "maxLength": MAX_NONCE},
            "Anything: `proof` then shows that the server has the key of its server.json.",
        ),
    ),
)
READY = Operation("isReady", "Whether runs can be started.", {200: Answer("They can.", health.Ready)})
HEALTH = Operation(
    "getHealth",
    "Who works on what, on all hosts; how Redis and the archive do, and how far the archive is behind.",
    {200: Answer("How all of it does.", health.Health)},
)
METRICS = Operation(
    "getMetrics", "Figures for Prometheus.", {200: Answer("Text format 1.0.0.", media_type="text/plain")}
)
DOCUMENT = Operation("getOpenApi", "This document.", {200: Answer("OpenAPI 3.1.", media_type=JSON)})

ENTER = Operation(
    "enter",
    "Exchange the code of a one-time link for a browser's session.",
    {
        303: Answer(
            "To the dashboard, with the session's cookie.",
            headers={"Location": "The dashboard.", "Set-Cookie": "The session."},
        )
    },
    query=(Parameter("code", {"type": "string", "minLength": 1, "maxLength": 512}, "From the link.", required=True),),
    errors=(401,),
)
LINK = Operation(
    "makeSessionLink",
    "A link that lets one browser in, once. It may do what the token may, but never more than control.",
    {201: Answer("The link.", audit.LinkAnswer)},
    body=audit.Nothing,
    body_optional=True,
)
LEAVE = Operation(
    "leaveSession",
    "End the browser's session.",
    {204: Answer("It has ended.", headers={"Set-Cookie": "Forgets the session."})},
    body=audit.Nothing,
    body_optional=True,
)
TOKENS = Operation("listTokens", "All tokens, without their values.", {200: Answer("Tokens.", audit.TokenPage)})
CREATE_TOKEN = Operation(
    "createToken",
    "A new token; its value is shown this once.",
    {201: Answer("The token.", audit.NewToken, links=("rotateToken", "revokeToken"))},
    body=audit.CreateTokenRequest,
    errors=(409,),
)
ROTATE_TOKEN = Operation(
    "rotateToken",
    "A new value for a token; the old one counts no more.",
    {200: Answer("The token.", audit.NewToken)},
    body=audit.Nothing,
    body_optional=True,
    errors=(404,),
)
REVOKE_TOKEN = Operation(
    "revokeToken",
    "The token counts no more.",
    {204: Answer("It is gone.")},
    errors=(404, 409),
)
AUDIT = Operation(
    "listAudit",
    "Who changed what, newest first.",
    {200: Answer("Entries.", audit.AuditPage)},
    query=(Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "How many."),),
)
