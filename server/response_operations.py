"""What the API's document says of the routes of Responses."""

from __future__ import annotations

from dataclasses import replace

from cody.contracts import responses, submit
from server.operations import HEADER_POSITION, STREAM_POSITION, Answer, Operation, Parameter

_POSITION = {"type": "string", "pattern": STREAM_POSITION}

SUBMIT = Operation(
    "submit",
    "Ask a model; its answer is a Response that is made in the background. Tools that are named are carried out by Cody.",
    {202: Answer("The Response has begun.", submit.SubmitAnswer, links=("getResponse", "abortResponse"))},
    body=submit.SubmitRequest,
)
STREAM = Operation(
    "streamResponse",
    "The events of a Response as they come, to its end, as Server-Sent Events.",
    {200: Answer("StreamEvents; after the last one, `data: [DONE]`.", media_type="text/event-stream")},
    query=(
        Parameter(
            "from",
            {**_POSITION, "default": "0"},
            "`0` = the oldest kept, `$` = only new ones, or the id of the last one that was seen.",
        ),
    ),
    headers=(
        Parameter(
            "Last-Event-ID",
            {"type": "string", "pattern": HEADER_POSITION},
            "As `from`, and before it: what browsers send.",
        ),
    ),
    errors=(404, 410),
)
RESPONSE = Operation(
    "getResponse",
    "A Response as the archive has it.",
    {200: Answer("The Response; `queued` until the archive has its beginning.", responses.Response)},
    errors=(404,),
)
ABORT = Operation(
    "abortResponse",
    "End an answer that is being made.",
    {200: Answer("It has ended as aborted.", submit.AbortAnswer)},
    body=submit.AbortRequest,
    body_optional=True,
    errors=(404, 409),
)
THREADS = Operation(
    "listThreads",
    "The threads in the archive, those that were answered last first.",
    {200: Answer("One page.", submit.ThreadPage)},
    query=(
        Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "How many at most."),
        Parameter("cursor", {"type": "string", "minLength": 1, "maxLength": 512}, "`nextCursor` of the page before."),
    ),
)
ALL_THREADS = replace(THREADS, id="listAllThreads", summary="The same as /api/v2/threads, beside the search.")
THREAD = Operation(
    "getThread",
    "The Responses of a thread, oldest first; of a long one the newest 1,000 (the export has all).",
    {200: Answer("The thread.", submit.ThreadAnswer)},
    errors=(404,),
)
