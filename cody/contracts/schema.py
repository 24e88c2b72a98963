"""The JSON Schemas of the event pipeline, for other languages.

docs/schemas/ holds them (`python -m cody.contracts.schema response.json`, `... stream_event.json`); a test holds the
files and the models together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from cody.contracts.responses import Response
from cody.contracts.stream_events import STREAM_EVENT

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DESCRIBED: tuple[tuple[str, str, TypeAdapter[Any]], ...] = (
    ("response.json", "Response", TypeAdapter(Response)),
    ("stream_event.json", "StreamEvent", STREAM_EVENT),
)


_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""pydantic 2.14 writes bounds by its own names where a validator stands before them, as in `Int`: every reader of JSON Schema
would pass over those."""
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})
"""Keywords whose keys are names that someone chose, each with a schema."""
_DATA = frozenset({"const", "enum", "default", "examples", "required"})


def standard(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of pydantic's in JSON Schema's words only. Pure."""
    made: dict[str, Any] = {}
    for word, part in schema.items():
        if word in _DATA:
            made[word] = part
        elif word in _BY_NAME:
            made[word] = {name: standard(one) for name, one in part.items()}
        else:
            made[_BOUNDS.get(word, word)] = _standard_part(part)
    return made


def _standard_part(part: Any) -> Any:
    match part:
        case dict():
            return standard(part)
        case list():
            return [_standard_part(one) for one in part]
        case _:
            return part


def schemas() -> dict[str, str]:
    """The text of each schema, by the name of its file. They describe what writers send: optional fields may be absent."""
    texts = {}
    for name, title, adapter in _DESCRIBED:
        schema = {"$schema": _DIALECT, "title": title} | standard(adapter.json_schema(mode="validation"))
        for shape in schema["$defs"].values():
            if "const" in shape.get("properties", {}).get("type", {}):
                # pydantic calls it optional since Python may leave it out; on the wire it tells what the object is.
                shape["required"] = ["type", *shape.get("required", [])]
        texts[name] = json.dumps(schema, indent=2, sort_keys=True) + "\n"
    return texts


if __name__ == "__main__":
    print(schemas()[sys.argv[1]], end="")
