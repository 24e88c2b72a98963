"""Text of agents made safe to print: it shows what is there and steers no terminal. Pure.

An agent's output is untrusted: an escape sequence could retitle the window, write the clipboard, or overwrite the lines
that say what it did; a bidirectional override makes one text look like another.
"""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
"""Colours are dropped without a trace: they are common, harmless, and unreadable when spelled out."""

_KEPT = {0x09, 0x0A}
_REPLACED = {
    # The visible twin of each control character (U+2400 block): a reader sees that there was one.
    **{code: 0x2400 + code for code in range(0x20) if code not in _KEPT},
    0x7F: 0x2421,
    **dict.fromkeys(range(128, 160), 65533),
    # Lone surrogates can't be encoded; marks of direction and invisible separators deceive the reader.
    **dict.fromkeys(range(55296, 57344), 65533),
    **dict.fromkeys((1564, 8206, 8207, 8232, 8233, 65279), 65533),
    **dict.fromkeys((*range(8234, 8239), *range(8294, 8298)), 65533),
    **dict.fromkeys(range(917504, 917632), 65533),
}


def safe(text: str) -> str:
    """`text` with nothing left in it that a terminal would obey; newlines and tabs stay."""
    return _COLOUR.sub("", text.replace("\r\n", "\n")).translate(_REPLACED)


def one_line(text: str, max_chars: int = 200) -> str:
    """`text` safe and on one line, cut to `max_chars` with an ellipsis."""
    flat = " ".join(safe(text[: 4 * max_chars]).split())
    return flat if len(flat) <= max_chars and len(text) <= 4 * max_chars else flat[: max_chars - 1].rstrip() + "…"


def last_lines(text: str, count: int, max_chars: int = 400) -> list[str]:
    """The last `count` lines that are not blank, safe, each cut to `max_chars`."""
    lines = [line.rstrip() for line in safe(text[-count * 4 * max_chars :]).split("\n") if line.strip()]
    return [line if len(line) <= max_chars else line[: max_chars - 1] + "…" for line in lines[-count:]]
