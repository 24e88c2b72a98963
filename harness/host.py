"""`cody worker`: a process that works on runs and serves nobody. Run as `python -m harness.host`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from structlog import get_logger

from cody import collecting
from cody.errors import CodyError, ConfigurationError
from cody.logs import configure_logs
from cody.pipeline.tracing import tracing
from cody.redaction import Redactor
from cody.settings import Settings, load_settings, process_secrets, rooted
from harness.service import RunService

log = get_logger()

EPILOG = """examples:
  REDIS_URL=redis://queue:6379/0 cody worker --concurrency 8
  cody worker --on-shutdown finish-turn      # a deploy waits for the turn's end, then hands its runs on
"""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cody worker",
        description="Work on runs that servers on the same Redis accepted. Ends on SIGTERM: what runs is handed on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--concurrency", type=int, metavar="N", help="how many runs at a time (default 4)")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="where prompts and raw output are kept")
    parser.add_argument(
        "--workspace-root",
        type=Path,
        action="append",
        metavar="DIR",
        help="work only inside DIR (default: the current folder)",
    )
    parser.add_argument("--allow-danger", action="store_true", default=None, help="allow danger-full-access runs")
    parser.add_argument(
        "--on-shutdown",
        choices=["resume", "finish-turn", "cancel"],
        help="on SIGTERM: end the turn and hand the run on (resume), finish the turn first, or cancel the run",
    )
    return parser.parse_args(argv)


def _settings(options: argparse.Namespace) -> Settings:
    settings = load_settings(
        concurrency=options.concurrency,
        state_dir=options.state_dir,
        workspace_roots=tuple(options.workspace_root) if options.workspace_root else None,
        allow_danger=options.allow_danger,
        on_shutdown=options.on_shutdown,
    )
    if settings.redis_url is None:
        raise ConfigurationError(
            "a worker shares its runs over Redis: set REDIS_URL to the Redis that `cody serve` uses "
            "(`cody serve` alone needs none: it works on its own runs)"
        )
    if settings.concurrency < 1:
        raise ConfigurationError("--concurrency must be at least 1: a worker that takes no run has nothing to do")
    if settings.database_url is None:
        # A SQLite file of this host would take the news from the server's archive and keep it to itself.
        settings = settings.model_copy(update={"projector": False})
    return rooted(settings)


async def _work(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with RunService.open(settings) as service:
        archiving = "" if settings.projector else ", archiving nothing: a server or `cody projector` on this Redis does"
        collecting.loaded()
        print(f"working on up to {settings.concurrency} runs at a time{archiving}", flush=True)
        await stop.wait()
        log.info("host.stopping", runs=service.active_runs, mode=settings.on_shutdown)
        stop.clear()
        leaving = asyncio.create_task(service.shutdown())
        again = asyncio.create_task(stop.wait())
        await asyncio.wait({leaving, again}, return_when=asyncio.FIRST_COMPLETED)
        # A second signal does not wait for turns: leaving the service ends them within the grace.
        for task in (leaving, again):
            task.cancel()
        await asyncio.gather(leaving, again, return_exceptions=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Work until a signal; the exit code."""
    options = _arguments(argv)
    configure_logs()
    redactor = Redactor(())
    try:
        settings = _settings(options)
        redactor = Redactor(process_secrets(settings))
        configure_logs(settings.log_level, redactor=redactor)
        with tracing("cody-worker"), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(settings))
    except CodyError as error:
        print(f"cody worker: {redactor.clean_text(error.message)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
