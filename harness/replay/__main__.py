"""`python -m harness.replay`: serve a scenario, list the bundled ones, record a new one."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from cody.errors import ConfigurationError
from harness.replay.codex_home import write_codex_home
from harness.replay.demo_workspace import create_demo_workspace
from harness.replay.record import Recorder
from harness.replay.scenario_file import bundled_scenarios, load_scenario
from harness.replay.server import ReplayServer

_EXAMPLES = """\
examples:
  python -m harness.replay list
  python -m harness.replay serve --scenario demo --codex-home ~/.cache/cody-replay
  python -m harness.replay serve --scenario ./mine.yaml --port 8123 --delay-factor 0
  python -m harness.replay demo-workspace ./pricing
  python -m harness.replay record --upstream https://api.openai.com/v1 --out mine.yaml --codex-home ~/.cache/cody-record

`serve` and `record` print one line when they are ready, `ready URL NAME=VALUE ...`; give these variables to the client:
  env CODEX_HOME=... CODY_REPLAY_KEY=... codex exec --json -s workspace-write - < prompt.md
They run until SIGINT or SIGTERM.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 refused (the reason is on stderr), 2 wrong usage."""
    args = _parser().parse_args(argv)
    try:
        match args.command:
            case "list":
                for name in bundled_scenarios():
                    print(f"{name:14} {load_scenario(name).description}")
            case "demo-workspace":
                create_demo_workspace(args.folder)
            case "serve":
                asyncio.run(_serve(args))
            case "record":
                asyncio.run(_record(args))
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cody replay",
        description="A loopback model server that plays recorded answers to agent CLIs: no key, no network.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the bundled scenarios")
    workspace = commands.add_parser("demo-workspace", help="write the project that the scenario `demo` works on")
    workspace.add_argument("folder", type=Path)

    serve = commands.add_parser("serve", help="play a scenario")
    serve.add_argument("--scenario", required=True, metavar="NAME|FILE", help="a bundled name, or a YAML or JSON file")
    serve.add_argument(
        "--delay-factor", type=_factor, default=1.0, metavar="F", help="multiplies all delays; 0 = none (default 1)"
    )
    serve.add_argument("--env-key", default="CODY_REPLAY_KEY", metavar="NAME", help="variable that carries the key")

    record = commands.add_parser("record", help="pass requests on to an upstream and write its answers to a scenario")
    record.add_argument("--upstream", required=True, metavar="URL", help="such as https://api.openai.com/v1")
    record.add_argument("--out", required=True, type=Path, metavar="FILE", help="the scenario; must not exist yet")
    record.add_argument("--env-key", default="OPENAI_API_KEY", metavar="NAME", help="variable that carries your key")

    for command in (serve, record):
        command.add_argument("--host", default="127.0.0.1", help="a loopback address (default 127.0.0.1)")
        command.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
        command.add_argument(
            "--codex-home", type=Path, metavar="DIR", help="write a config.toml for codex there (not below $TMPDIR)"
        )
        command.add_argument("--model", default="gpt-5.5", help="the model that codex names (default gpt-5.5)")
    return parser


def _factor(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError("must be between 0 and 1000")
    return value


async def _serve(args: argparse.Namespace) -> None:
    stop = _stop_signals()
    server = ReplayServer(args.scenario, host=args.host, port=args.port, delay_factor=args.delay_factor)
    async with server:
        if args.codex_home is None:
            env = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "replay"}
        else:
            env = write_codex_home(args.codex_home, server.base_url, env_key=args.env_key, model=args.model)
        _print_ready(server.base_url, env)
        await stop.wait()


async def _record(args: argparse.Namespace) -> None:
    stop = _stop_signals()
    async with Recorder(args.upstream, args.out, host=args.host, port=args.port) as recorder:
        env = {"OPENAI_BASE_URL": recorder.base_url}
        if args.codex_home is not None:
            env = write_codex_home(args.codex_home, recorder.base_url, env_key=args.env_key, model=args.model)
            del env[args.env_key]  # the key is the user's own, and in the environment already
        _print_ready(recorder.base_url, env)
        await stop.wait()


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _print_ready(base_url: str, env: Mapping[str, str]) -> None:
    """One line for whoever started this; quoted, so that a shell and `shlex.split` read it alike."""
    print(f"ready {base_url} {shlex.join(f'{name}={value}' for name, value in env.items())}", flush=True)


if __name__ == "__main__":
    # stdout is for the ready line alone: whoever waits for it may read no further.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.exit(main())
