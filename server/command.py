"""The server process, from its flags to its exit code.

Exit codes: 0 after an orderly end (SIGTERM, SIGINT, idle exit), 1 when it could not start or broke, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import uvloop
from structlog import get_logger

from cody.errors import CodyError
from cody.logs import configure_logs
from cody.pipeline.tracing import tracing
from cody.redaction import Redactor
from cody.settings import load_settings, process_secrets, rooted
from server.listening import NotLoopback
from server.serve import serve
from server.stop import StopSignals

log = get_logger()

BROKEN = 1
WRONG_USAGE = 2
MAX_PORT = 65_535
EXAMPLES = """\
examples:
  cody serve
  cody serve --workspace-root ~/src --workspace-root /srv/shop
  cody serve --port 0 --idle-exit 300
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; answers the exit code."""
    stop = StopSignals()
    stop.install()
    redactor = Redactor(())
    try:
        flags = flags_of(arguments)
        configure_logs()
        settings = rooted(load_settings(**flags))
        redactor = Redactor(process_secrets(settings))
        configure_logs(settings.log_level, redactor=redactor)
        with tracing("cody-server"), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, stop))
    except NotLoopback as error:
        return _refuse(redactor.clean_text(error.message), WRONG_USAGE)
    except Exception as error:
        return _refuse(redactor.clean_text(_reason(error)), BROKEN)
    finally:
        stop.ignore()
    return 0


def _reason(error: Exception) -> str:
    """Why the server can't go on. An error that nobody foresaw goes to the log with its traceback."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    match error:
        case CodyError():
            return error.message
        case OSError(filename=str() as filename):
            return f"{filename}: {error.strerror} (for another state folder: --state-dir, or CODY_STATE_DIR)"
        case _:
            log.error("server.broke", exc_info=error)
            return f"unexpected error: {type(error).__name__}: {error}"


def _refuse(message: str, exit_code: int) -> int:
    print(f"cody: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USAGE, f"cody: {message} (see --help)\n")


def flags_of(arguments: Sequence[str] | None) -> dict[str, Any]:
    """The flags as `load_settings` takes them: None where one was not given. Wrong usage ends the process."""
    parser = _Parser(
        prog="cody serve",
        description="Cody's HTTP server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", help="address to listen on (127.0.0.1); any but loopback needs --allow-remote")
    parser.add_argument("--port", type=_port, help="0 = any free one (8899)")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="where Cody keeps everything")
    parser.add_argument(
        "--workspace-root",
        dest="workspace_roots",
        type=Path,
        action="append",
        metavar="DIR",
        help="folder that runs may work in; may be given several times (default: the current folder)",
    )
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        default=None,
        help="allow a --host that other machines can reach: plain HTTP, so only behind a proxy or in a network of your own",
    )
    parser.add_argument(
        "--allowed-host",
        dest="allowed_hosts",
        action="append",
        metavar="NAME",
        help="a name that others reach the server by: NAME, NAME:PORT, or https://NAME behind a proxy; several times",
    )
    parser.add_argument(
        "--allow-danger", action="store_true", default=None, help="allow runs with sandbox danger-full-access"
    )
    parser.add_argument(
        "--on-shutdown",
        choices=("resume", "finish-turn", "cancel"),
        help="unfinished runs: end the turn, or finish it, and leave the run to be taken up again; or cancel the run",
    )
    parser.add_argument(
        "--idle-exit",
        dest="idle_exit_s",
        type=_seconds,
        metavar="SEC",
        help="end after so long without work and clients",
    )
    found = vars(parser.parse_args(arguments))
    if found["workspace_roots"] is not None:
        found["workspace_roots"] = tuple(found["workspace_roots"])
    if found["allowed_hosts"] is not None:
        found["allowed_hosts"] = tuple(found["allowed_hosts"])
    return found


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAX_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to {MAX_PORT})")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds < float("inf"):
        return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
