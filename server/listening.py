"""The socket the server listens on: loopback only."""

from __future__ import annotations

import errno
import ipaddress
import resource
import socket

from cody.errors import ConfigurationError

OPEN_FILES = 65_536
"""Wanted: each client of a stream is an open file, and the usual soft limit of 1,024 is fewer than may come."""


class NotLoopback(ConfigurationError):
    """The server was asked to listen where others could reach it."""


def loopback_address(host: str) -> str:
    """The address to bind for this host; raises NotLoopback for one that other machines could reach."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise NotLoopback(
            f"host {host!r} is not a loopback address: Cody speaks plain HTTP, and listens on 127.0.0.1 or ::1 only; from "
            "another machine, reach it by `ssh -L`"
        )
    return str(address)


def bound_socket(address: str, port: int) -> socket.socket:
    """A socket bound to a loopback address, not listening yet; raises ConfigurationError when the port can't be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else a server that was stopped a moment ago keeps its port from the next one.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        raise port_error(address, port, error) from None
    return bound


def port_error(address: str, port: int, error: OSError) -> ConfigurationError:
    """What to tell about a port that can't be listened on."""
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"port {port} on {address} is taken: is a server running already? Stop it, or choose another with --port"
        )
    return ConfigurationError(f"can't listen on port {port} of {address}: {error.strerror}")


def allow_many_open_files() -> None:
    """Raise the soft limit of open files as far as is useful and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
