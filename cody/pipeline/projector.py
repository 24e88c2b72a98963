"""`cody projector`: a process that keeps the archive up to date, beside servers with CODY_PROJECTOR=0.

Run as `python -m cody.pipeline.projector`. Any number of them share the work.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from structlog import get_logger

from cody import collecting
from cody.errors import CodyError, ConfigurationError
from cody.logs import configure_logs
from cody.pipeline.projection import Projection
from cody.pipeline.publisher import Reaper
from cody.pipeline.tracing import tracing
from cody.redaction import Redactor
from cody.settings import Settings, load_settings, process_secrets
from cody.store.clients import connect
from cody.store.response_events import ResponseEvents

log = get_logger()


def _settings(argv: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="cody projector",
        description="Write what Redis has of runs and responses into the archive (DATABASE_URL). Ends on SIGTERM.",
    )
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="where the SQLite file is without DATABASE_URL")
    settings = load_settings(state_dir=parser.parse_args(argv).state_dir, projector=True)
    if settings.redis_url is None:
        raise ConfigurationError(
            "a projector reads what servers write: set REDIS_URL to the Redis that they use "
            "(`cody serve` alone needs none: it keeps its own archive)"
        )
    return settings


async def project(settings: Settings, redis_url: str) -> None:
    """Project until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    redis = connect(redis_url)
    async with Projection.open(settings, redis_url) as projection:
        await projection.archive.open()
        reaping = asyncio.create_task(Reaper(ResponseEvents(redis)).run())
        collecting.loaded()
        print(f"projecting into {projection.archive.address}", flush=True)
        await stop.wait()
        log.info("projector.stopping")
        reaping.cancel()
        await asyncio.gather(reaping, return_exceptions=True)
    await redis.aclose()


def main(argv: Sequence[str] | None = None) -> int:
    """Work until a signal; the exit code."""
    configure_logs()
    redactor = Redactor(())
    try:
        settings = _settings(argv)
        redactor = Redactor(process_secrets(settings))
        configure_logs(settings.log_level, redactor=redactor)
        assert settings.redis_url is not None
        with tracing("cody-projector"):
            asyncio.run(project(settings, settings.redis_url))
    except CodyError as error:
        print(f"cody projector: {redactor.clean_text(error.message)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
