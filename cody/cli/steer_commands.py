"""Commands that steer a run: `pause`, `resume`, `cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from cody.cli.invoke import finish, settings_of
from cody.cli.look_commands import AsJson, RunId

PAUSE_EXAMPLES = """\
Examples:

\b
  cody pause 3f9a
  cody pause 3f9a --reason "the tests need the staging database"
"""
RESUME_EXAMPLES = """\
Examples:

\b
  cody resume 3f9a
  cody runs --status paused --json | jq -r '.runs[].runId' | xargs -n 1 cody resume
"""
CANCEL_EXAMPLES = """\
Examples:

\b
  cody cancel 3f9a
  cody cancel 3f9a --reason "wrong branch" --json
"""

Reason = Annotated[str | None, typer.Option(help="Kept with the run.", metavar="TEXT", show_default=False)]


def pause(ctx: typer.Context, run: RunId, reason: Reason = None, as_json: AsJson = False) -> None:
    """Pause a run when its turn has ended."""
    settings = settings_of(ctx)

    from cody.cli.steer import control_run

    finish(control_run(settings, run, "pause", reason=reason, json=as_json))


def resume(ctx: typer.Context, run: RunId, reason: Reason = None, as_json: AsJson = False) -> None:
    """Go on with a paused run."""
    settings = settings_of(ctx)

    from cody.cli.steer import control_run

    finish(control_run(settings, run, "resume", reason=reason, json=as_json))


def cancel(ctx: typer.Context, run: RunId, reason: Reason = None, as_json: AsJson = False) -> None:
    """End a run now, its turn included."""
    settings = settings_of(ctx)

    from cody.cli.steer import control_run

    finish(control_run(settings, run, "cancel", reason=reason, json=as_json))
