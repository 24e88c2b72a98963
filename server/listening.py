"""The socket the server listens on: loopback, unless more was asked for in so many words."""

from __future__ import annotations

import errno
import ipaddress
import resource
import socket

from cody.errors import ConfigurationError

OPEN_FILES = 65_536
"""Wanted: each client of a stream is an open file, and the usual soft limit of 1,024 is fewer than may come."""
FILES_OF_OURS = 4_096
"""A run has some 20: pipes, logs, its lease's connections."""


class NotLoopback(ConfigurationError):
    """The server was asked to listen where others could reach it."""


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def address_to_bind(host: str, *, allow_remote: bool) -> str:
    """The address of this host; raises NotLoopback for one that other machines could reach, unless that is allowed."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    if address is None:
        raise NotLoopback(f"host {host!r} is not an address of this machine: give one as 127.0.0.1 or ::1")
    if not address.is_loopback and not allow_remote:
        raise NotLoopback(
            f"host {host!r} is not a loopback address: Cody speaks plain HTTP, and listens on 127.0.0.1 or ::1 only. From "
            "another machine, reach it by `ssh -L`; or give --allow-remote (CODY_ALLOW_REMOTE), with the names that others "
            "use as --allowed-host"
        )
    return str(address)


def bound_socket(address: str, port: int) -> socket.socket:
    """A socket bound to this address, not listening yet; raises ConfigurationError when the port can't be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else a server that was stopped a moment ago keeps its port from the next one.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # all addresses: those of IPv4 too, everywhere
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


def allow_many_open_files() -> int:
    """Raise the soft limit of open files as far as is useful and allowed; how many it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def connections_at_most(open_files: int) -> int:
    """How many connections leave enough open files for the runs, Redis and the disk. Pure."""
    return open_files - min(FILES_OF_OURS, open_files // 2)
