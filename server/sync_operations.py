"""What the API's document says of the routes of the sync engine."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from cody.contracts.wire import Int, Wire
from cody.sync import wire
from cody.sync.policy import MAX_ID_LENGTH
from server.operations import Answer, Operation, Parameter, Schema

IDS: dict[str, Schema] = {
    name: {"type": "string", "pattern": "^[0-9A-Za-z_-]{1,128}$"} for name in ("source_id", "job_id")
}
"""Parameters of paths."""

ShortText = Annotated[str, Field(max_length=MAX_ID_LENGTH)]
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
Number = Annotated[Int, Field(ge=-(2**53), le=2**53)]
"""What every JSON reader takes for the same number; whether it makes sense is the engine's to say."""
Base64 = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        max_length=-(-wire.MAX_CHUNK_BYTES // 3) * 4,
    ),
]
WAIT_AT_MOST_MS = round(wire.MAX_WAIT_S * 1000)


class StartSource(Wire):
    """Body of `POST /api/sync/sources`."""

    conversation_id: Id
    thread_id: Id | None = None


class AppendChunk(Wire):
    """Body of `POST /api/sync/sources/{id}/chunks`; `payload` is base64 of at most 512 KiB."""

    index: Number
    payload: Base64
    message_count: Number
    byte_size: Number


class SealSource(Wire):
    """Body of `POST /api/sync/sources/{id}/seal`. The engine judges the manifest: a wrong one fails the source."""

    manifest: dict[str, Any]
    checksum: ShortText
    expected_message_count: Number | None = None


class Nothing(Wire):
    """A body without fields."""


CONVERSATION = Parameter(
    "conversationId",
    {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
    "Which conversation.",
    required=True,
)
START = Operation(
    "startSyncSource",
    "Begin to send the record of a conversation.",
    {201: Answer("The source collects chunks.", wire.SourceAnswer)},
    body=StartSource,
    errors=(409,),
)
APPEND = Operation(
    "appendSyncChunk",
    "Add a chunk; the same one again changes nothing.",
    {200: Answer("It is kept.", wire.AppendAnswer)},
    body=AppendChunk,
    errors=(404, 409),
)
SEAL = Operation(
    "sealSyncSource",
    "All chunks are there: check them, and put them in their place.",
    {200: Answer("The job that does it; the same one for every further call.", wire.JobAnswer)},
    body=SealSource,
    errors=(404, 409),
)
JOBS = Operation(
    "listSyncJobs",
    "The jobs of a conversation, newest first.",
    {200: Answer("All of them.", wire.JobsAnswer)},
    query=(CONVERSATION,),
)
JOB = Operation(
    "getSyncJob",
    "A job as it is, or once it has ended.",
    {200: Answer("The job.", wire.JobAnswer)},
    query=(
        Parameter(
            "waitMs",
            {"type": "integer", "minimum": 0, "maximum": WAIT_AT_MOST_MS, "default": 0},
            "How long the answer may wait for the job's end.",
        ),
    ),
    errors=(404,),
)
CANCEL = Operation(
    "cancelSyncJob",
    "End a job; one that has ended stays as it is.",
    {200: Answer("The job, ended.", wire.JobAnswer)},
    body=Nothing,
    body_optional=True,
    errors=(404,),
)
RECORD = Operation(
    "getSyncRecord",
    "The verified record of a conversation, byte for byte.",
    {200: Answer("An answer that breaks off was replaced meanwhile.", media_type="application/octet-stream")},
    query=(CONVERSATION,),
    errors=(404,),
)
