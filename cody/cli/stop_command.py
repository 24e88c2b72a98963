"""`cody stop`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from cody.cli.invoke import finish, settings_of

EXAMPLES = """\
Examples:

\b
  cody stop
  cody stop --yes && cody serve --workspace-root ~/src --workspace-root /srv/shop

Runs that are active are interrupted, and taken up again by the next `cody run` or `cody serve`.
"""


def stop(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, also when runs are active.")] = False,
) -> None:
    """End the local server: the one of the state folder."""
    settings = settings_of(ctx)

    from cody.cli.stopping import stop_server

    finish(stop_server(settings, yes=yes))
