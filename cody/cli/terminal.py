"""Where things are printed: what was asked for on stdout, everything else on stderr."""

from __future__ import annotations

import sys

import orjson
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from cody.settings import environment

PIPE_WIDTH = 4_000


def stdout_console() -> Console:
    """A console that prints text as it is: no markup, no emoji names, no highlighting of numbers."""
    # Into a pipe or a file nothing is cut or folded: who reads there can't widen the window.
    width = None if sys.stdout.isatty() or "COLUMNS" in environment() else PIPE_WIDTH
    return Console(markup=False, emoji=False, highlight=False, width=width)


def print_table(console: Console, table: Table) -> None:
    """The table; without the blanks that fill its lines, where it goes to a program."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().rstrip("\n").split("\n")
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))


def stderr_console() -> Console:
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def is_interactive() -> bool:
    """Whether a person sits there: a question that is printed can be answered."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def print_json(value: BaseModel | dict[str, object] | list[object]) -> None:
    """One JSON document on stdout; models in camelCase, as the API has them."""
    data = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(type(value).__name__)
