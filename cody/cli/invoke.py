"""What every command does around its own work: settings from the root's options, errors on stderr, the exit code."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from cody import collecting
from cody.cli import exits
from cody.errors import CodyError, ConfigurationError

if TYPE_CHECKING:
    from cody.settings import Settings


@dataclass(frozen=True, slots=True)
class RootOptions:
    """What stands before the command: `cody --url ... runs`."""

    url: str | None = None
    state_dir: Path | None = None


def root_options(ctx: typer.Context) -> RootOptions:
    found = ctx.find_root().obj
    return found if isinstance(found, RootOptions) else RootOptions()


def settings_of(ctx: typer.Context) -> Settings:
    """The settings in force for this command; ends it when they are wrong."""
    from cody.settings import load_settings

    options = root_options(ctx)
    try:
        return load_settings(url=options.url, state_dir=options.state_dir)
    except CodyError as error:
        fail(error)


def finish(work: Coroutine[Any, Any, int | None]) -> NoReturn:
    """Run the command's work to its end, and end the command with its exit code (None: 0)."""
    import asyncio

    collecting.loaded()  # some go on for hours
    try:
        code = asyncio.run(work)
    except CodyError as error:
        fail(error)
    except BrokenPipeError:
        raise  # `cody runs | head`: click ends the command without a word
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        fail(ConfigurationError(f"{named}{error.strerror or error}"))
    raise typer.Exit(code or exits.OK)


def fail(error: CodyError) -> NoReturn:
    """Say what failed, and end with the exit code for it."""
    from cody.cli.untrusted import safe
    from cody.cli.wording import in_options

    print(f"cody: {safe(in_options(error.message))}", file=sys.stderr)
    raise typer.Exit(exits.of_error(error))


def misused(message: str) -> NoReturn:
    """End with the exit code of wrong usage."""
    print(f"cody: {message}", file=sys.stderr)
    raise typer.Exit(exits.USAGE)
