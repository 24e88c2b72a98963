"""The work of the commands that read the archive: search and export."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from rich.text import Text

from cody.cli.run_ids import find_run_id
from cody.cli.running import server_url
from cody.cli.terminal import print_json, stderr_console, stdout_console
from cody.cli.untrusted import one_line
from cody.client import credential_for
from cody.client.pipeline import PipelineClient
from cody.errors import ConfigurationError
from cody.pipeline.search_text import SearchHit
from cody.settings import Settings

THREAD = "thread:"


async def _connect(settings: Settings) -> PipelineClient:
    url = await server_url(settings)
    return PipelineClient(url, token=credential_for(settings, url))


async def search_archive(
    settings: Settings, query: str, *, limit: int, run: str | None, cursor: str | None, json: bool
) -> None:
    """Print one page of what was found."""
    async with await _connect(settings) as client:
        run_id = None if run is None else await find_run_id(client, run)
        page = await client.search(query, limit=limit, cursor=cursor, run_id=run_id)
    if json:
        print_json(page)
        return
    console = stdout_console()
    for hit in page.hits:
        console.print(_line(hit), soft_wrap=True)
    errors = stderr_console()
    if not page.hits:
        errors.print("nothing found")
    if page.next_cursor is not None:
        errors.print(f"more: --cursor {page.next_cursor}", style="dim", soft_wrap=True)


def _line(hit: SearchHit) -> Text:
    """Where it was found, what it is, and the piece with the words in bold. Pure."""
    if hit.run_id is not None:
        where = hit.run_id[:8] + (f" turn {hit.turn}" if hit.turn else "")
    else:
        where = f"response {(hit.response_id or '?')[:8]}"
    line = Text.assemble((where, "cyan"), f"  {hit.kind}  ")
    at = 0
    for start, end in hit.marks:
        line.append(one_line(f"{hit.snippet[at:start]}|", 400)[:-1])
        line.append(one_line(hit.snippet[start:end], 400), "bold")
        at = end
    tail = hit.snippet[at:]
    line.append((" " if tail[:1].isspace() else "") + one_line(tail, 400))
    return line


async def export_what(settings: Settings, what: str, *, format: Literal["jsonl", "md"], output: Path | None) -> None:
    """Write a run (an id or its beginning) or a thread (thread:ID) to stdout or, whole or not at all, into a file."""
    async with await _connect(settings) as client:
        if what.startswith(THREAD):
            pieces = client.export_thread(what.removeprefix(THREAD), format)
        else:
            pieces = client.export_run(await find_run_id(client, what), format)
        if output is None:
            async for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        else:
            await _write(output, pieces)


async def _write(path: Path, pieces: AsyncIterator[bytes]) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("xb") as file:
            async for piece in pieces:
                file.write(piece)
        os.replace(draft, path)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
