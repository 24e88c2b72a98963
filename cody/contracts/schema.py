"""The JSON Schemas of the event pipeline, as files for other languages: `python -m cody.contracts.schema [FOLDER]`.

A test holds docs/schemas/ and the models together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cody.contracts.responses import Response
from cody.contracts.stream_events import STREAM_EVENT

FOLDER = Path("docs/schemas")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DESCRIBED: tuple[tuple[str, str, TypeAdapter[Any]], ...] = (
    ("response.json", "Response", TypeAdapter(Response)),
    ("stream_event.json", "StreamEvent", STREAM_EVENT),
)


def schemas() -> dict[str, str]:
    """The text of each schema file, by its name. They describe what writers send: optional fields may be absent."""
    texts = {}
    for name, title, adapter in _DESCRIBED:
        schema = {"$schema": _DIALECT, "title": title} | adapter.json_schema(mode="validation")
        for shape in schema["$defs"].values():
            if "const" in shape.get("properties", {}).get("type", {}):
                # pydantic calls it optional since Python may leave it out; on the wire it tells what the object is.
                shape["required"] = ["type", *shape.get("required", [])]
        texts[name] = json.dumps(schema, indent=2, sort_keys=True) + "\n"
    return texts


def main(arguments: Sequence[str]) -> None:
    """Write the files into the folder that is named, or docs/schemas."""
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
