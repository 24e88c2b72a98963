"""What the one who started this process lets runs do: where they may work, and whether without a sandbox."""

from __future__ import annotations

import os
from pathlib import Path

from cody.contracts.run_config import RunConfig
from cody.errors import Forbidden
from cody.settings import Settings, agent_environment
from harness import epic
from harness.epic import Epic

CODEX_FOLDER = ".codex"
"""In a folder that its agent may write to, codex keeps the one of this name from it."""


def check_allowed(config: RunConfig, settings: Settings) -> None:
    """Raises Forbidden, which names the field and the flag. Asked at the start, and again by the host that takes the run.

    A relative workingDir passes: it is refused, in other words, where the epic is looked for.
    """
    if config.sandbox == "danger-full-access" and not settings.allow_danger:
        raise Forbidden(
            "config.sandbox: danger-full-access lets the agent change anything on this machine; allowed only where Cody was "
            "started with --allow-danger",
            details={"field": "config.sandbox"},
        )
    check_inside(config, settings)
    if os.path.isabs(config.working_dir):
        _check_codex_home(config, Path(os.path.realpath(config.working_dir)), settings)


def check_inside(config: RunConfig, settings: Settings) -> None:
    """Raises Forbidden when workingDir is not inside a root: of such a run nothing is read here, either."""
    if not is_inside(config.working_dir, settings.workspace_roots):
        raise _outside(config.working_dir, settings)


def visible(config: RunConfig, epic_id: str, settings: Settings) -> Epic:
    """The epic of a run whose files may be shown here; raises Forbidden outside of the roots, and InvalidRequest.

    The folder that was found is what counts from here on, so that one is looked at, too: a link in workingDir may turn
    after it was followed.
    """
    check_inside(config, settings)
    found = epic.locate(config, epic_id)
    if not _is_below(found.working_dir, settings.workspace_roots):
        raise _outside(str(found.working_dir), settings)
    return found


def located(config: RunConfig, epic_id: str, settings: Settings) -> Epic:
    """The epic of a run that may work there; raises what `check_allowed` and `visible` raise."""
    check_allowed(config, settings)
    found = visible(config, epic_id, settings)
    _check_codex_home(config, found.working_dir, settings)
    return found


def is_inside(working_dir: str, roots: tuple[Path, ...]) -> bool:
    """Whether the folder, wherever its links lead now, is one of the roots or below one; without roots everything is.

    Roots are compared as real paths: by components, never as text (`/src/shop2` is not inside `/src/shop`).
    """
    return not os.path.isabs(working_dir) or _is_below(Path(os.path.realpath(working_dir)), roots)


def _is_below(real: Path, roots: tuple[Path, ...]) -> bool:
    return not roots or any(real.is_relative_to(os.path.realpath(root)) for root in roots)


def _outside(folder: str, settings: Settings) -> Forbidden:
    roots = ", ".join(str(root) for root in settings.workspace_roots)
    return Forbidden(
        f"config.workingDir {folder} is not inside a folder that Cody may work in here ({roots}): start it "
        "for this folder too, with --workspace-root (CODY_WORKSPACE_ROOTS)",
        details={"field": "config.workingDir"},
    )


def _check_codex_home(config: RunConfig, working_dir: Path, settings: Settings) -> None:
    """Raises Forbidden when codex would read its settings from where its agent can write them.

    They name programs that codex itself starts, outside the sandbox: what one turn writes there, the next would run.
    """
    if config.agent != "codex" or settings.allow_danger:
        return
    env = {**agent_environment(), **config.env}
    given = env.get("CODEX_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), CODEX_FOLDER)
    home = working_dir / given  # a relative one begins where codex is started
    if _is_in_reach(home, working_dir):
        raise Forbidden(
            f"CODEX_HOME {home} is in workingDir {working_dir}, where the agent could write its own settings, and with them "
            "leave its sandbox: put it elsewhere. Allowed only where Cody was started with --allow-danger",
            details={"field": "config.env"},
        )


def _is_in_reach(home: Path, working_dir: Path) -> bool:
    """Whether an agent that writes in `working_dir`, a real path, can change `home`, or where the way to it leads."""
    steps = [Path(os.path.realpath(step)) for step in (home, *home.parents)]
    if home.name == CODEX_FOLDER and steps[:2] == [working_dir / CODEX_FOLDER, working_dir]:
        del steps[:2]
    return any(step.is_relative_to(working_dir) for step in steps)
