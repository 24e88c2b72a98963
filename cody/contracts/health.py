"""Is the server alive, and can it start runs, on the wire."""

from __future__ import annotations

from typing import Literal

from cody.contracts.wire import Wire


class Alive(Wire):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


class Ready(Wire):
    """Runs can be started. `degraded`: what works, but is weaker than it should be."""

    ready: Literal[True] = True
    checks: dict[str, str]
    degraded: list[str]
