"""Reading JSON of someone else's leniently, and writing it back as text. Pure."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel

MAX_COUNT = 10**15
"""Largest figure that is taken: no answer reaches it, and it fits a 64-bit column and a JavaScript number."""


def text_of(value: Any) -> str:
    """The text, or an empty one for anything else."""
    return value if isinstance(value, str) else ""


def count_of(value: Any) -> int:
    """The figure, or 0 for anything that is no count."""
    return min(value, MAX_COUNT) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def object_of(value: Any) -> dict[str, Any]:
    """The JSON object, or an empty one for anything else.

    An object of a provider's SDK counts as the JSON that it was made from. SDKs build those without validation, so
    anything may be in any field; in a dict, that is plain to see.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    return value if isinstance(value, dict) else {}


def objects_of(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON array; other members, and anything that is no array, count as none."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def json_text(value: Any) -> str:
    """Compact JSON; `null` for what orjson can't write (nested deeper than 254, half an emoji)."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return "null"
