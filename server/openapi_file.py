"""Writes the API's description where it is committed: `python -m server.openapi_file [FILE]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cody.settings import Settings
from harness.service import RunService
from server.app import parts_of, table_of
from server.openapi import text_of
from server.site import Site
from server.streams import OpenStreams

FILE = Path("docs/openapi.json")


def text() -> str:
    """The document. The table is that of a server; this one has no store, and opens nothing."""
    settings = Settings()
    service = RunService(settings, None)
    parts = parts_of(service, Site("127.0.0.1", 0), OpenStreams(service, keepalive_s=1), settings)
    return text_of(table_of(service, parts))


def main(arguments: Sequence[str]) -> None:
    """Write the file that is named, or docs/openapi.json."""
    path = Path(arguments[0]) if arguments else FILE
    path.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
