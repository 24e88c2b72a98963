"""What the one who started this process lets runs do: where they may work, and whether without a sandbox."""

from __future__ import annotations

import os
from pathlib import Path

from cody.contracts.run_config import RunConfig
from cody.errors import Forbidden
from cody.settings import Settings


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
    if not is_inside(config.working_dir, settings.workspace_roots):
        roots = ", ".join(str(root) for root in settings.workspace_roots)
        raise Forbidden(
            f"config.workingDir {config.working_dir} is not inside a folder that Cody may work in here ({roots}): start it "
            "for this folder too, with --workspace-root (CODY_WORKSPACE_ROOTS)",
            details={"field": "config.workingDir"},
        )


def is_inside(working_dir: str, roots: tuple[Path, ...]) -> bool:
    """Whether the folder, wherever its links lead now, is one of the roots or below one; without roots everything is.

    Roots are compared as real paths: by components, never as text (`/src/shop2` is not inside `/src/shop`).
    """
    if not roots or not os.path.isabs(working_dir):
        return True
    real = Path(os.path.realpath(working_dir))
    return any(real.is_relative_to(os.path.realpath(root)) for root in roots)
