"""Cut a record into chunks, pure and streaming: never more than one chunk is held.

The same record is cut the same way every time, however it was read: a transfer that starts over after a crash sends
chunks that the other side knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cody.sync.contracts import Chunk

CHUNK_BYTES = 256 * 1024
"""Small enough to send again after a lost connection, large enough that a gigabyte is 4096 calls."""


def chunk_messages(messages: Iterable[bytes], max_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Whole messages, as many as fit; one that is larger than a chunk is cut, and counts where it ends.

    Nothing is put between messages: bring their separators along. The messages themselves are held one at a time.
    """
    _check(max_bytes)
    held, count, index = bytearray(), 0, 0
    for message in messages:
        if held and len(held) + len(message) > max_bytes:
            yield _chunk(index, held, count)
            held, count, index = bytearray(), 0, index + 1
        start = 0
        while len(message) - start > max_bytes:
            yield _chunk(index, message[start : start + max_bytes], 0)
            start, index = start + max_bytes, index + 1
        held += message[start:]
        count += 1
    if count:
        yield _chunk(index, held, count)


def chunk_lines(blocks: Iterable[bytes], max_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Lines (each a message, its newline included) out of blocks of any size, as many as fit; a line of any length is
    cut.

    Where one block ends and the next begins does not matter. A last line without a newline counts as one.
    """
    _check(max_bytes)
    held, index = bytearray(), 0
    for block in blocks:
        held += block
        start = 0
        while len(held) - start > max_bytes:
            newline = held.rfind(b"\n", start, start + max_bytes)
            cut = start + max_bytes if newline < 0 else newline + 1
            yield _chunk(index, held[start:cut], held.count(b"\n", start, cut))
            start, index = cut, index + 1
        del held[:start]
    if held:
        yield _chunk(index, held, held.count(b"\n") + (not held.endswith(b"\n")))


def _chunk(index: int, payload: bytes | bytearray, message_count: int) -> Chunk:
    return Chunk(index=index, payload=bytes(payload), message_count=message_count, byte_size=len(payload))


def _check(max_bytes: int) -> None:
    if max_bytes < 1:
        raise ValueError(f"max_bytes is {max_bytes}; a chunk holds at least one byte")
