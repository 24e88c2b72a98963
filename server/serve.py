"""The life of the server process: bind, open the service, serve, and end in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine

from structlog import get_logger

from cody import collecting
from cody.settings import Settings
from harness.service import RunService
from server.app import Parts, build_app, parts_of
from server.connection import ServerConfig
from server.http import HttpServer
from server.idle import IdleExit
from server.listening import (
    address_to_bind,
    allow_many_open_files,
    bound_socket,
    connections_at_most,
    is_loopback,
    port_error,
)
from server.ready import ServerFile, say_ready
from server.site import AllowedHost, Site
from server.stop import StopSignals
from server.streams import OpenStreams

log = get_logger()

LAST_EVENTS_S = 1.0
"""How long a stream whose run was cancelled by the shutdown has to bring that news."""
LAST_ANSWERS_S = 2.0
LAST_RESORT_S = 10.0
"""For requests that go on without a client: each waits for Redis or a disk at the most, and both have deadlines."""


async def serve(settings: Settings, stop: StopSignals) -> None:
    """Serve until told to stop, or until nobody needs the server. Raises CodyError and OSError when it can't start."""
    stop.begin()
    max_connections = connections_at_most(allow_many_open_files())
    address = address_to_bind(settings.host, allow_remote=settings.allow_remote)
    allowed = tuple(AllowedHost.parse(one) for one in settings.allowed_hosts)
    bound = bound_socket(address, settings.port)
    site = Site(address, bound.getsockname()[1], allowed)
    server_file = ServerFile(settings.server_file)
    try:
        async with RunService.open(settings) as service:
            await _serve_site(settings, stop, service, site, bound, server_file, max_connections)
    except asyncio.CancelledError:
        if not stop.heard:
            raise
        log.info("server.stopped_at_start")
    finally:
        bound.close()
        server_file.remove()


async def _serve_site(
    settings: Settings,
    stop: StopSignals,
    service: RunService,
    site: Site,
    bound: socket.socket,
    server_file: ServerFile,
    max_connections: int,
) -> None:
    streams = OpenStreams(service, keepalive_s=settings.sse_keepalive_s)
    idle = _idle_exit(settings, service, stop)
    parts = parts_of(service, site, streams, settings)
    config = ServerConfig(
        build_app(service, site, streams, settings, parts),
        on_connections=idle.connections if idle else lambda count: None,
        max_connections=max_connections,
    )
    watching = _running(streams, parts, settings.sse_keepalive_s)
    async with watching, parts.sync, _serving(HttpServer(config), bound, site) as (server, serving):
        collecting.loaded()
        server_file.write(site.url, parts.proof_key)
        stop.started()
        say_ready(site.url)
        log.info("server.ready", url=site.url)
        if not is_loopback(site.host):
            log.warning("server.open_to_the_network", address=site.host, port=site.port, hosts=sorted(site.origins))
        if idle:
            idle.connections(0)
        await _first_of(serving, stop.wait())
        await _wind_up(settings, stop, server, service, streams)


def _idle_exit(settings: Settings, service: RunService, stop: StopSignals) -> IdleExit | None:
    if settings.idle_exit_s is None:
        return None
    return IdleExit(settings.idle_exit_s, active_runs=lambda: service.busy_with, leave=stop.stop)


async def _wind_up(
    settings: Settings, stop: StopSignals, server: HttpServer, service: RunService, streams: OpenStreams
) -> None:
    """Stop accepting, end the agents, then the streams, which so have shown the agents' last events."""
    log.info("server.stopping", active_runs=service.active_runs, open_streams=streams.count)
    server.leave()
    if settings.on_shutdown == "finish-turn":
        await _finish_turns(service, stop)
    else:
        await service.shutdown()
    await streams.end_all(grace_s=LAST_EVENTS_S if settings.on_shutdown == "cancel" else 0.0)
    await server.cut_connections(after_s=LAST_ANSWERS_S)


async def _finish_turns(service: RunService, stop: StopSignals) -> None:
    """Wait for the turns that run, unless the process is told to stop again: leaving the service then ends them."""
    finishing = asyncio.create_task(service.shutdown(), name="finish turns")
    again = asyncio.create_task(stop.wait_again())
    try:
        await asyncio.wait({finishing, again}, return_when=asyncio.FIRST_COMPLETED)
        if finishing.done():
            await finishing
        else:
            log.info("server.hurried", active_runs=service.active_runs)
    finally:
        for task in (finishing, again):
            task.cancel()
        await asyncio.gather(finishing, again, return_exceptions=True)


@contextlib.asynccontextmanager
async def _running(streams: OpenStreams, parts: Parts, every_s: float) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(streams.report(), name="streams"),
        asyncio.create_task(parts.grants.watch(every_s), name="grants"),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def _serving(
    server: HttpServer, bound: socket.socket, site: Site
) -> AsyncIterator[tuple[HttpServer, asyncio.Task[None]]]:
    """The server, listening; at the end of the block it leaves, and the last connection is gone."""
    serving = asyncio.create_task(server.serve(sockets=[bound]), name="http")
    try:
        try:
            await _first_of(serving, server.ready.wait())
        except OSError as error:
            raise port_error(site.host, site.port, error) from None
        yield server, serving
        await asyncio.wait([serving], timeout=LAST_RESORT_S)
        if serving.done():
            await serving
        else:
            log.error("server.requests_abandoned", count=len(server.server_state.tasks))
    finally:
        server.leave()
        serving.cancel()
        await asyncio.wait([serving])


async def _first_of(serving: asyncio.Task[None], awaited: Coroutine[None, None, object]) -> None:
    """Wait for this; raises what ended the server, should that come first."""
    waiting = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if serving.done():
        await serving
        raise RuntimeError("the HTTP server ended by itself")
