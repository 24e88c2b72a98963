"""The work of the commands that steer a run."""

from __future__ import annotations

from rich.text import Text

from cody.cli.run_ids import find_run_id
from cody.cli.running import connect
from cody.cli.status_bar import status_text
from cody.cli.terminal import print_json, stderr_console, stdout_console
from cody.contracts.run import ControlAction
from cody.settings import Settings

THEN = {
    "pause": "it pauses when the turn has ended",
    "resume": "it goes on with the next turn",
    "cancel": "its agent is ended now",
}


async def control_run(settings: Settings, given: str, action: ControlAction, *, reason: str | None, json: bool) -> None:
    """Send a control message and print the status that it led to. Raises Conflict where it is not possible."""
    async with await connect(settings) as client:
        run_id = await find_run_id(client, given)
        answer = await client.control(run_id, action, reason)
    if json:
        print_json(answer)
        return
    stdout_console().print(Text.assemble("run ", answer.run_id, " is ", status_text(answer.status)), soft_wrap=True)
    stderr_console().print(f"  {THEN[action]}; watch it: cody watch {run_id[:8]}", style="dim", soft_wrap=True)
