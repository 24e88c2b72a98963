"""A user's regular expression, searched in lines: in time that grows with the line's length only, whatever the expression.

RE2's syntax (github.com/google/re2/wiki/Syntax): that of most languages, without look-around and back-references. Python's own
`re` takes an expression like `(a+)+$` exponential time on one line, and holds the interpreter's lock all the while.
"""

from __future__ import annotations

import re2  # type: ignore[import-untyped]

MAX_PROGRAM_BYTES = 256 << 10
"""Of the compiled expression with its cache. The largest takes some 75 ms for a line of 4 KiB, without the lock."""


class LinePattern:
    """A compiled expression."""

    __slots__ = ("_compiled",)

    def __init__(self, pattern: str) -> None:
        """Raises ValueError, which says what is wrong with it."""
        options = re2.Options()
        options.log_errors = False  # RE2's own way is stderr
        options.never_capture = True
        options.max_mem = MAX_PROGRAM_BYTES
        try:
            self._compiled = re2.compile(pattern, options)
        except re2.error as error:
            raise ValueError(
                f"not a regular expression that can be searched in linear time: {_reason(error)}"
            ) from None
        except UnicodeEncodeError:
            raise ValueError("not a regular expression: it has half a character (a lone surrogate)") from None

    def matches(self, line: str) -> bool:
        """Whether it is found anywhere in the line."""
        return self._compiled.search(line) is not None


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else "refused"
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
