"""The base of everything that crosses a wall: frozen, strict, camelCase on the wire, snake_case in Python."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A frozen model whose JSON is camelCase and whose unknown fields are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        ser_json_inf_nan="null",
        allow_inf_nan=False,
    )


def _integral(value: Any) -> Any:
    """Take 2.0 for 2: JSON Schema calls both integers, and a strict int alone would refuse the first."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


Int = Annotated[int, BeforeValidator(_integral)]
"""An integer as JSON Schema means it; booleans and fractions are refused."""


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seconds = Annotated[float, BeforeValidator(_number)]


@lru_cache(maxsize=64)
def utc_text(epoch_ms: int) -> str:
    """The instant as ISO 8601 in UTC with milliseconds: `2026-01-31T09:00:00.123Z`."""
    second, ms = divmod(epoch_ms, 1000)
    return f"{_second_text(second)}.{ms:03d}Z"


@lru_cache(maxsize=64)
def _second_text(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")


def epoch_ms(text: str) -> int:
    """The inverse of `utc_text`; raises ValueError for anything else."""
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
