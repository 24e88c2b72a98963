"""Globs over relative POSIX paths, as regular expressions that take linear time.

`*` and `?` stay inside one path segment, `[a-z]` and `[!a-z]` are classes, a segment `**` stands for any number of
segments, none included. Braces have no meaning. A pattern that names a folder covers what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_ANY_SEGMENTS = "(?:[^/]+/)*?"


def compile_globs(patterns: Iterable[str]) -> re.Pattern[str]:
    """One expression that `match`es a path covered by any of the patterns; a folder is asked for as `path/`.

    `build` covers `build`, `build/` and `build/x`; `build/**` covers the last two only.
    """
    alternatives = [f"(?:{_translate(pattern)})" for pattern in patterns]
    # No pattern covers nothing: (?!) never matches.
    return re.compile("|".join(alternatives) or "(?!)", re.DOTALL)


def _translate(pattern: str) -> str:
    segments = [segment for segment in pattern.split("/") if segment not in {"", "."}]
    if pattern.endswith("/"):
        segments.append("**")
    content_only = segments[-1:] == ["**"]
    while segments[-1:] == ["**"]:
        segments.pop()
    if not segments:
        return "" if content_only else "(?!)"
    groups: list[list[str]] = [[]]
    for segment in segments:
        if segment == "**":
            groups.append([])
        else:
            groups[-1].append(segment)
    # What covers a folder covers all below it, so the leftmost place where the groups fit is as good as any: each group
    # is atomic, and a path that does not match costs no second try of another split.
    boundary = "(?=/)" if content_only else r"(?=/|\Z)"
    return "".join(_group(group, first=at == 0, last=at == len(groups) - 1, boundary=boundary)
                   for at, group in enumerate(groups))  # fmt: skip


def _group(segments: Sequence[str], *, first: bool, last: bool, boundary: str) -> str:
    if not segments:
        return ""
    body = "/".join(_segment(segment) for segment in segments) + (boundary if last else "/")
    return body if first else f"(?>{_ANY_SEGMENTS}{body})"


def _segment(segment: str) -> str:
    if not segment.strip("*"):
        return "[^/]+"
    first, *rest = re.split(r"\*+", segment)
    if not rest:
        return _chunk(first)
    *inner, last = rest
    # The leftmost fit of each inner chunk leaves the most for those behind it; only the last is bound to the end.
    return _chunk(first) + "".join(f"(?>[^/]*?{_chunk(chunk)})" for chunk in inner) + f"[^/]*{_chunk(last)}"


def _chunk(text: str) -> str:
    """A part of a segment without `*`: characters, `?` and classes."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        # A class holds at least one character, so a `]` right after the opening is one of them.
        end = text.find("]", at + (3 if text[at + 1 : at + 2] == "!" else 2)) if text[at] == "[" else -1
        if text[at] == "?":
            parts.append("[^/]")
        elif end > 0:
            parts.append(_class(text[at + 1 : end]))
            at = end
        else:
            parts.append(re.escape(text[at]))
        at += 1
    return "".join(parts)


def _class(content: str) -> str:
    negated = content.startswith("!") and len(content) > 1
    items = content[1:] if negated else content
    parts: list[str] = []
    at = 0
    while at < len(items):
        if items[at + 1 : at + 2] == "-" and at + 2 < len(items):
            low, high = items[at], items[at + 2]
            if low <= high:
                parts.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 3
        else:
            parts.append(re.escape(items[at]))
            at += 1
    if negated:
        return f"[^/{''.join(parts)}]"
    return f"[{''.join(parts)}]" if parts else "(?!)"
