"""Tables that fit the window: columns that matter less go, and none of those that stay is cut. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """`rank`: 0 stays whatever happens; of the others the highest goes first. `least`: it may be cut down to so much."""

    name: str
    style: str = ""
    right: bool = False
    rank: int = 0
    least: int | None = None


Cell = str | Text


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> Table:
    """A table of at most `width` cells. No text is taken for markup, whatever the console that prints it does."""
    texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    whole = [max([len(column.name), *(row[index].cell_len for row in texts)]) for index, column in enumerate(columns)]
    kept = _kept(columns, whole, width)
    widths = _widths([columns[index] for index in kept], [whole[index] for index in kept], width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for index, cells in zip(kept, widths, strict=True):
        column = columns[index]
        justify = "right" if column.right else "left"
        table.add_column(column.name, justify=justify, style=column.style, no_wrap=True, width=cells)  # type: ignore[arg-type]
    for row in texts:
        table.add_row(*(row[index] for index in kept))
    return table


def _kept(columns: Sequence[Column], whole: Sequence[int], width: int) -> list[int]:
    """The columns that there is room for, by index."""
    kept = list(range(len(columns)))
    while True:
        needed = sum(_least(columns[index], whole[index]) for index in kept) + GAP * (len(kept) - 1)
        last = max(kept, key=lambda index: columns[index].rank)
        if needed <= width or columns[last].rank == 0:
            return kept
        kept.remove(last)


def _least(column: Column, whole: int) -> int:
    return whole if column.least is None else min(whole, max(column.least, len(column.name)))


def _widths(columns: Sequence[Column], whole: Sequence[int], width: int) -> list[int]:
    """What each gets: its least, and from the left as much of the rest as it has use for."""
    widths = [_least(column, cells) for column, cells in zip(columns, whole, strict=True)]
    spare = width - sum(widths) - GAP * (len(widths) - 1)
    for index, cells in enumerate(whole):
        more = max(min(cells - widths[index], spare), 0)
        widths[index] += more
        spare -= more
    return widths
