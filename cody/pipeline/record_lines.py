"""The lines of a record that comes in pieces, one in memory at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

MAX_LINE_BYTES = 16 << 20


async def lines_of(pieces: AsyncIterator[bytes], max_bytes: int = MAX_LINE_BYTES) -> AsyncGenerator[bytes, None]:
    """The lines, without their newlines (LF, as bytes: a separator within JSON text ends no line).

    One longer than `max_bytes` comes as an empty line: whoever reads can't use it, and those around it stay numbered.
    """
    held, too_long = bytearray(), False
    async for piece in pieces:
        held += piece
        *whole, rest = held.split(b"\n")
        for line in whole:
            yield b"" if too_long or len(line) > max_bytes else bytes(line)
            too_long = False
        too_long = too_long or len(rest) > max_bytes
        held = bytearray() if too_long else rest
    if held or too_long:
        yield bytes(held)
