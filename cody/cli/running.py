"""Starting a run, watching it, and saying how it ended."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from cody.cli import exits
from cody.cli.known_roots import read_roots
from cody.cli.local_server import ensure_server, wake_server
from cody.cli.screen import make_screen
from cody.cli.status_bar import status_text
from cody.cli.tables import run_text
from cody.cli.terminal import is_interactive, print_json, stderr_console, stdout_console
from cody.cli.watching import Watched, watch
from cody.client import CodyClient, credential_for, find_server
from cody.client.discovery import read_server_file
from cody.contracts.run import RunSnapshot, StartRunRequest
from cody.errors import Forbidden
from cody.settings import Settings


async def start_run(settings: Settings, request: StartRunRequest, *, detach: bool, json: bool) -> int:
    """The work of `cody run`; the exit code."""
    errors = stderr_console()
    url = await ensure_server(settings, errors, Path(request.config.working_dir))
    async with CodyClient(url, token=credential_for(settings, url)) as client:
        try:
            answer = await client.start(request)
        except Forbidden as error:
            if error.details.get("field") != "config.workingDir":
                raise
            raise Forbidden(_outside(settings, url, request.config.working_dir), details=error.details) from None
        if detach:
            if json:
                print_json(answer)
            else:
                stdout_console().print(answer.run_id)
                errors.print(f"started; watch it with: cody watch {answer.run_id[:8]}", style="dim", soft_wrap=True)
            return exits.OK
        errors.print(f"run {answer.run_id}  on {url}", style="dim", soft_wrap=True)
        return await watch_run(client, settings, answer.meta, from_="0", json=json)


def _outside(settings: Settings, url: str, working_dir: str) -> str:
    """What to do about a folder that the server may not work in."""
    written = read_server_file(settings.server_file)
    known = read_roots(settings.state_dir)
    if written is None or written.url.rstrip("/") != url:
        return (
            f"the server at {url} may not work in {working_dir}: start it with --workspace-root {working_dir} "
            "(CODY_WORKSPACE_ROOTS) as well"
        )
    server = f"the server at {url} (process {written.pid})"
    if known.pid == written.pid and not settings.workspace_roots:
        roots = ", ".join(map(str, known.roots))
        return (
            f"{server} may work in {roots} only, not in {working_dir}. End it with `cody stop`, and give this command "
            "again: the next one is started for this folder too"
        )
    return (
        f"{server} may not work in {working_dir}: end it with `cody stop`, and start it for this folder too: "
        f"cody serve --workspace-root {working_dir} --workspace-root ... (CODY_WORKSPACE_ROOTS)"
    )


async def connect(settings: Settings) -> CodyClient:
    """A client of the server, which is started again when `cody run` had started it; raises as `wake_server` does."""
    url = await server_url(settings)
    return CodyClient(url, token=credential_for(settings, url))


async def server_url(settings: Settings) -> str:
    """The URL of the server, which is started again when `cody run` had started it; raises as `wake_server` does."""
    return await find_server(settings) or await wake_server(settings)


async def watch_run(client: CodyClient, settings: Settings, run: RunSnapshot, *, from_: str, json: bool) -> int:
    """Watch a run to its end, say how it ended, and give the exit code."""
    screen = make_screen(json=json)
    watched = await watch(client, run, screen, from_=from_, interactive=is_interactive() and not json)
    if not json and watched.outcome == "ended":
        console = stdout_console()
        console.print()
        console.print(
            run_text(watched.snapshot, where_output_is(settings, watched.snapshot), brief=True), soft_wrap=True
        )
    say_how_to_go_on(watched)
    return exits.of_status(watched.snapshot.status) if watched.outcome == "ended" else exits.RUN_GOES_ON


def say_how_to_go_on(watched: Watched) -> None:
    """For a run that was left before its end, on stderr."""
    run_id = watched.snapshot.run_id
    short = run_id[:8]
    match watched.outcome:
        case "detached":
            text = Text.assemble("run ", run_id, " goes on (", status_text(watched.snapshot.status), ")")
            commands = f"watch it: cody watch {short}    end it: cody cancel {short}"
        case "paused":
            text = Text.assemble("run ", run_id, " is ", status_text("paused"))
            commands = f"go on: cody resume {short}    end it: cody cancel {short}"
        case "ended":
            return
    errors = stderr_console()
    errors.print(text, soft_wrap=True)
    errors.print(f"  {commands}", soft_wrap=True)


def where_output_is(settings: Settings, run: RunSnapshot) -> list[tuple[str, str]]:
    """The command that prints the run's raw output, and its folder, when that is on this machine; by name."""
    command = f"cody logs {run.run_id[:8]}" + (" --turn N" if run.stats.turns > 1 else "")
    folder = settings.runs_dir / run.run_id
    return [("output", command), *([("kept in", str(folder))] if folder.is_dir() else [])]
