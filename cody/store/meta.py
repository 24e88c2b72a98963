"""The meta hash of a run and its snapshot: flat strings on one side, typed on the other. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cody.contracts.run import CompletionState, RunError, RunSnapshot, RunStats, RunSummary
from cody.contracts.run_config import RunConfig
from cody.errors import CodyError
from cody.sealing import shown_env
from cody.store import keys

Fields = Mapping[str, str]
Writable = Mapping[str, str | int]

_STATS = {name: f"stats.{field.alias or name}" for name, field in RunStats.model_fields.items()}
_OPTIONAL_TEXT = ("reason", "startedAt", "finishedAt", "workerId", "host")


class MetaCorrupt(CodyError):
    """The meta of a run can't be read: someone else wrote it, or it was cut."""

    code = "meta_corrupt"


def stats_fields(stats: RunStats) -> dict[str, str | int]:
    """The stats as fields of the hash: `stats.turns`, `stats.tokens`, ..."""
    return {field: getattr(stats, name) for name, field in _STATS.items()}


def completion_fields(completion: CompletionState) -> dict[str, str | int]:
    return {
        "completion.detected": "true" if completion.detected else "false",
        "completion.line": completion.line or "",
        "completion.source": completion.source or "",
    }


def error_fields(error: RunError | None) -> dict[str, str | int]:
    """An empty value removes its field."""
    if error is None:
        return {"error.code": "", "error.message": "", "error.retryable": ""}
    return {
        "error.code": error.code,
        "error.message": error.message,
        "error.retryable": "true" if error.retryable else "false",
    }


def stats_of(fields: Fields) -> RunStats:
    return RunStats(**{name: int(fields.get(field, 0)) for name, field in _STATS.items()})


def config_of(run_id: str, fields: Fields) -> RunConfig:
    """The run's config; raises MetaCorrupt."""
    try:
        return RunConfig.model_validate_json(fields["config"])
    except (KeyError, ValueError) as error:
        raise MetaCorrupt(f"the config of run {run_id} can't be read: {str(error)[:200]}") from None


def _common(run_id: str, fields: Fields, subscribers: int) -> dict[str, Any]:
    error = None
    if "error.code" in fields:
        error = RunError(
            code=fields["error.code"],
            message=fields.get("error.message", ""),
            retryable=fields.get("error.retryable") == "true",
        )
    completion = CompletionState.model_validate(
        {
            "detected": fields.get("completion.detected") == "true",
            "line": fields.get("completion.line"),
            "source": fields.get("completion.source"),
        }
    )
    return {
        "runId": run_id,
        "status": fields["status"],
        "createdAt": fields["createdAt"],
        "updatedAt": fields["updatedAt"],
        "epicId": fields["epicId"],
        "streamKey": keys.events(run_id),
        "workingDir": fields["workingDir"],
        "agent": fields["agent"],
        "pid": int(fields["pid"]) if "pid" in fields else None,
        "currentTurn": int(fields["currentTurn"]) if "currentTurn" in fields else None,
        "stats": stats_of(fields),
        "completion": completion,
        "error": error,
        "subscribers": subscribers,
        "fence": int(fields.get("fence", 0)),
        **{name: fields.get(name) for name in _OPTIONAL_TEXT},
    }


def summary(run_id: str, fields: Fields, subscribers: int) -> RunSummary:
    """One row of the listing; raises MetaCorrupt."""
    try:
        return RunSummary.model_validate(_common(run_id, fields, subscribers))
    except (KeyError, ValueError) as error:
        raise MetaCorrupt(f"the meta of run {run_id} can't be read: {str(error)[:200]}") from None


def snapshot(run_id: str, fields: Fields, subscribers: int, *, place: int | None = None) -> RunSnapshot:
    """All of a run; raises MetaCorrupt."""
    config = config_of(run_id, fields)
    config = config.model_copy(update={"env": shown_env(config.env)})
    try:
        return RunSnapshot.model_validate(
            {**_common(run_id, fields, subscribers), "config": config, "queuePlace": place}
        )
    except (KeyError, ValueError) as error:
        raise MetaCorrupt(f"the meta of run {run_id} can't be read: {str(error)[:200]}") from None
