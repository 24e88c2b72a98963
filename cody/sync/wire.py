"""The snapshots as JSON of the HTTP API: the same fields, in camelCase. Both ends of it use this."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel, to_snake

from cody.sync.contracts import Frozen, JobSnapshot, SourceSnapshot

MAX_CHUNK_BYTES = 512 * 1024
"""The largest chunk over HTTP: in base64, and with what is around it, it fits a body of 1 MiB."""
MAX_WAIT_S = 20.0
"""How long the server holds back the answer about a job that has not ended; below what proxies cut off."""

Model = TypeVar("Model", bound=BaseModel)


class Camel(Frozen):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class SourceAnswer(Camel, SourceSnapshot):
    """A SourceSnapshot."""


class JobAnswer(Camel, JobSnapshot):
    """A JobSnapshot."""


class JobsAnswer(Camel):
    """Newest first."""

    jobs: tuple[JobAnswer, ...]


class AppendAnswer(Camel):
    """False: the chunk was there already."""

    appended: bool


def camel_keys(value: BaseModel) -> dict[str, Any]:
    """A model's fields under the names that they have on the wire."""
    return {to_camel(name): field for name, field in value.model_dump(mode="json").items()}


def snake_keys(value: dict[str, Any]) -> dict[str, Any]:
    """The inverse, for whatever somebody sent."""
    return {to_snake(name): field for name, field in value.items()}


def source_answer(source: SourceSnapshot) -> SourceAnswer:
    return SourceAnswer.model_validate(source.model_dump())


def job_answer(job: JobSnapshot) -> JobAnswer:
    return JobAnswer.model_validate(job.model_dump())
