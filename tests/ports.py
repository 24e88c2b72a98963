"""Ports on loopback that stay a test's own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port for one server after the other, which nobody else is given; while none listens there, who connects is refused.

    Linux gives a port that is bound to no one else, and lets a server bind it by its number all the same.
    """
    with bound_to(0) as holder:
        yield holder.getsockname()[1]


def bound_to(port: int) -> socket.socket:
    """A socket that is bound, and not listening yet: so long, others may be bound to the same port."""
    # The protocol by name: asyncio turns Nagle's algorithm off only then (uvloop always), and each answer takes 40 ms else.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
