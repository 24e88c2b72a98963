"""Commands of packages that `cody` does not import: each takes the place of this process.

They parse their own flags, so that there is one description of each, and `cody serve --help` is the server's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import cody

MODULES: Mapping[str, str] = {
    "serve": "server",
    "worker": "harness.host",
    "projector": "cody.pipeline.projector",
    "init": "harness.scaffold",
    "prompt": "harness.prompt",
    "doctor": "harness.doctor",
    "demo": "harness.demo",
    "replay": "harness.replay",
}


def module_command(module: str) -> list[str]:
    """The command line that runs a module of this installation.

    -P: without it, Python would look for the module in the current folder first, and a project with a `server` of its
    own is not rare.
    """
    return [sys.executable, "-P", "-m", module]


def module_environment(env: Mapping[str, str]) -> dict[str, str]:
    """`env` as such a command needs it: where Cody runs from its source, -P would leave it unfound."""
    root = Path(cody.__file__).resolve().parents[1]
    if root.name in {"site-packages", "dist-packages"}:
        return dict(env)
    return {**env, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [env.get("PYTHONPATH")])])}


def become(command: str, arguments: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Go on as the module of `command`; its exit code becomes ours. `env` is added to the environment."""
    from cody.settings import environment

    sys.stdout.flush()
    sys.stderr.flush()
    whole = module_environment({**environment(), **env})
    os.execve(sys.executable, [*module_command(MODULES[command]), *arguments], whole)  # noqa: S606
