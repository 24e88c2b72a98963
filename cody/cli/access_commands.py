"""Commands about access: `dashboard`, `audit`, `token create`, `token list`, `token rotate`, `token revoke`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cody.cli.invoke import finish, settings_of
from cody.cli.look_commands import AsJson

# The values of TokenScope, spelled again for the same reason as in run_command.
ScopeChoice = Literal["read", "control", "admin"]

DASHBOARD_EXAMPLES = """\
Examples:

\b
  cody dashboard
  cody dashboard --open

The link works once, and for two minutes. The browser it lets in may see and steer runs, for twelve hours.
"""
AUDIT_EXAMPLES = """\
Examples:

\b
  cody audit
  cody audit --limit 1000 --json | jq '.entries[] | select(.who == "ci")'
"""
ACCESS_EXAMPLES = """\
Examples:

\b
  cody token create ci --scope control
  cody token list
  cody token rotate ci
  cody token revoke ci

Scopes: read sees everything; control also starts and steers runs, which is to run programs as the server's user;
admin also manages tokens and reads the audit log. The CLI's own token is called local.
"""

token = typer.Typer(
    help="Make and take back access to the server.", epilog=ACCESS_EXAMPLES, no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")]


def dashboard(
    ctx: typer.Context,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Print the link that lets a browser into the dashboard."""
    settings = settings_of(ctx)

    from cody.cli.access import show_link

    finish(show_link(settings, open_browser=open_))


def audit(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Who changed what, when, and from where."""
    settings = settings_of(ctx)

    from cody.cli.access import show_audit

    finish(show_audit(settings, limit=limit, json=as_json))


@token.command()
def create(
    ctx: typer.Context,
    name: Name,
    scope: Annotated[ScopeChoice, typer.Option(help="What it may do.")] = "control",
    as_json: AsJson = False,
) -> None:
    """Make a token, and print it: this is the only time that it is shown."""
    settings = settings_of(ctx)

    from cody.cli.access import create_token

    finish(create_token(settings, name, scope, json=as_json))


@token.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """All tokens, without their values."""
    settings = settings_of(ctx)

    from cody.cli.access import list_tokens

    finish(list_tokens(settings, json=as_json))


@token.command()
def rotate(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Give a token a new value, and print it; the old one counts no more."""
    settings = settings_of(ctx)

    from cody.cli.access import rotate_token

    finish(rotate_token(settings, name, json=as_json))


@token.command()
def revoke(ctx: typer.Context, name: Name) -> None:
    """Take a token back, and end the browsers' sessions that were made with it."""
    settings = settings_of(ctx)

    from cody.cli.access import revoke_token

    finish(revoke_token(settings, name))
