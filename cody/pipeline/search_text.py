"""Full-text search without a database: the words of a text, what a query asks for, and the piece that is shown. Pure.

A query is plain words, all of which must occur, and "quoted phrases". Nothing in it is an operator, so nothing that
can be typed is an error. A word is a run of letters and digits: `src/foo_bar.py` is the phrase src foo bar py.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cody.contracts.wire import Int, Wire

DocumentKind = Literal["message", "command", "output", "log"]

MAX_DOCUMENT_CHARS = 32_768
"""What is searched of one text: all but the longest answers of a model."""
MAX_QUERY_CHARS = 1_000
MAX_PHRASES = 32
MAX_WORD_CHARS = 100
SNIPPET_CHARS = 200
LEAD_CHARS = 60
"""How much of a snippet comes before the first word that was found."""

# PostgreSQL 18, textsearch limits: a position is at most 16383, a lexeme has at most 256 of them.
MAX_POSITION = 16_383
MAX_POSITIONS = 255

_WORD = re.compile(r"[^\W_]+")
_PART = re.compile(r'"([^"]*)"?|([^\s"]+)')


@dataclass(frozen=True, slots=True)
class Document:
    """One text that can be found, and where it belongs."""

    kind: DocumentKind
    text: str
    run_id: str | None = None
    turn: int | None = None
    seq: int | None = None
    response_id: str | None = None


class SearchHit(Wire):
    """One text that was found. `marks` are the places in `snippet` (start and end) of the words that were asked for."""

    kind: DocumentKind
    run_id: str | None = None
    turn: Int | None = None
    seq: Int | None = None
    response_id: str | None = None
    snippet: str
    marks: list[tuple[Int, Int]]


class SearchPage(Wire):
    """Newest first."""

    hits: list[SearchHit]
    next_cursor: str | None = None


def searchable(text: str) -> str:
    """The text as it is indexed: composed, bounded, without what no database takes (NUL, half a surrogate pair)."""
    whole = text[:MAX_DOCUMENT_CHARS].encode("utf-8", "replace").decode()
    return unicodedata.normalize("NFC", whole).replace("\0", " ")


def words(text: str) -> list[str]:
    return [word[:MAX_WORD_CHARS] for word in _WORD.findall(text.lower())]


def phrases(query: str) -> list[str]:
    """What the query asks for: texts without quotes, each with a word in it; empty = it asks for nothing."""
    cut = searchable(query[:MAX_QUERY_CHARS])
    parts = (found.group(1) or found.group(2) or "" for found in _PART.finditer(cut))
    return [part for part in parts if _WORD.search(part)][:MAX_PHRASES]


def fts5_query(asked: Iterable[str]) -> str:
    """For SQLite's FTS5: strings only, which it cuts into words itself; side by side means all of them."""
    return " ".join('"' + phrase.replace('"', '""') + '"' for phrase in asked)


def tsquery(asked: Iterable[str]) -> str:
    """For PostgreSQL: `('src' <-> 'foo') & 'bar'`. A word is letters and digits only, so nothing has to be escaped."""
    return " & ".join("(" + " <-> ".join(f"'{word}'" for word in words(phrase)) + ")" for phrase in asked)


def tsvector(text: str) -> str:
    """For PostgreSQL: `'bar':3 'foo':1,2`. Made here and not by `to_tsvector`, which takes a path for one word."""
    places: dict[str, list[int]] = {}
    for position, word in enumerate(words(text), start=1):
        found = places.setdefault(word, [])
        if len(found) < MAX_POSITIONS:
            found.append(min(position, MAX_POSITION))
    return " ".join(f"'{word}':{','.join(map(str, found))}" for word, found in places.items())


def snippet(text: str, asked: Iterable[str]) -> tuple[str, list[tuple[int, int]]]:
    """A piece of the text around the first word that was asked for, and where such words are in it."""
    wanted = {word for phrase in asked for word in words(phrase)}
    places = (match.span() for match in _WORD.finditer(text) if wanted.issuperset(words(match.group())))
    first = next(places, None)
    if first is None:
        return text[:SNIPPET_CHARS], []
    start = max(0, first[0] - LEAD_CHARS)
    end = start + SNIPPET_CHARS
    shown = itertools.takewhile(lambda place: place[1] <= end, itertools.chain([first], places))
    return text[start:end], [(a - start, b - start) for a, b in shown]
