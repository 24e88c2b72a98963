"""Commands that parse their own options: what the shell completes of them is declared here, once more.

Only their names, and the values of a choice: the rest is said by each one's `--help`. A test compares the names.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from cody.cli.invoke import root_options
from cody.cli.processes import become

SETTINGS: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True}


class PassedOn(TyperCommand):
    """Takes all arguments as they are; its options are for completion only."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return []


Text = Annotated[str | None, typer.Option()]
Dir = Annotated[Path | None, typer.Option()]
Help = Annotated[bool, typer.Option("--help")]
Json = Annotated[bool, typer.Option("--json")]
OnShutdown = Annotated[Literal["resume", "finish-turn", "cancel"] | None, typer.Option()]


def init(ctx: typer.Context, help: Help = False, harness_dir: Text = None, as_json: Json = False) -> None:
    """Make the .cody-harness folder of a repository."""
    _become(ctx, "init")


def doctor(
    ctx: typer.Context, help: Help = False, working_dir: Dir = None, state_dir: Dir = None, as_json: Json = False
) -> None:
    """Check what Cody needs on this machine, and say what mends it."""
    _become(ctx, "doctor")


def prompt(
    ctx: typer.Context,
    help: Help = False,
    working_dir: Dir = None,
    epic: Text = None,
    harness_dir: Text = None,
    out: Text = None,
) -> None:
    """Print the prompt that the next turn would get; start nothing."""
    _become(ctx, "prompt")


def serve(
    ctx: typer.Context,
    help: Help = False,
    host: Text = None,
    port: Text = None,
    state_dir: Dir = None,
    workspace_root: Dir = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote")] = False,
    allowed_host: Text = None,
    allow_danger: Annotated[bool, typer.Option("--allow-danger")] = False,
    on_shutdown: OnShutdown = None,
    idle_exit: Text = None,
) -> None:
    """Run the server in the foreground."""
    _note_serve(ctx)
    _become(ctx, "serve")


def worker(
    ctx: typer.Context,
    help: Help = False,
    concurrency: Text = None,
    state_dir: Dir = None,
    workspace_root: Dir = None,
    allow_danger: Annotated[bool, typer.Option("--allow-danger")] = False,
    on_shutdown: OnShutdown = None,
) -> None:
    """Work on runs of a shared Redis; serve nobody."""
    _become(ctx, "worker")


def demo(
    ctx: typer.Context,
    help: Help = False,
    model: Text = None,
    replay: Annotated[bool, typer.Option("--replay")] = False,
    workspace: Dir = None,
    keep: Annotated[bool, typer.Option("--keep")] = False,
    speed: Text = None,
) -> None:
    """A run of three turns on a scratch project; needs no key."""
    _become(ctx, "demo")


def replay(ctx: typer.Context, help: Help = False) -> None:
    """Play recorded model answers to agents: serve, list, record."""
    _become(ctx, "replay")


def add(app: typer.Typer, *commands: Any) -> None:
    """Make these functions commands of `app`, by their names."""
    for command in commands:
        app.command(cls=PassedOn, context_settings=SETTINGS, add_help_option=False)(command)


def _note_serve(ctx: typer.Context) -> None:
    """A later look at runs must not start a server for the folders of the one before: it would fail runs in others."""
    if {"-h", "--help"} & set(ctx.args):
        return
    from cody.cli.known_roots import FILE_NAME, fall_asleep
    from cody.errors import CodyError
    from cody.settings import load_settings

    words = [part for word in ctx.args for part in word.split("=", 1)]
    given = dict(pairwise(words)).get("--state-dir") or root_options(ctx).state_dir
    with suppress(CodyError, OSError):  # the server itself tells what is wrong
        folder = load_settings(state_dir=given).state_dir
        if (folder / FILE_NAME).exists():
            fall_asleep(folder, "by hand")


def _become(ctx: typer.Context, command: str) -> None:
    options = root_options(ctx)
    env = {} if options.state_dir is None else {"CODY_STATE_DIR": str(options.state_dir)}
    env |= {} if options.url is None else {"CODY_URL": options.url}
    become(command, ctx.args, env)
