"""The exit codes of `cody`; they are documented in `cody --help`, and scripts rely on them."""

from __future__ import annotations

from cody.errors import CodyError

OK = 0
ERROR = 1
USAGE = 2
RUN_FAILED = 3
RUN_CANCELLED = 4
RUN_GOES_ON = 5
"""The run that was watched has not ended: it was paused here, or left to go on alone."""
UNREACHABLE = 69
"""EX_UNAVAILABLE of sysexits.h."""

MEANING: dict[int, str] = {
    OK: "done; a run that was watched has completed",
    ERROR: "an error, explained on stderr",
    USAGE: "wrong usage",
    RUN_FAILED: "the run failed",
    RUN_CANCELLED: "the run was cancelled",
    RUN_GOES_ON: "the run has not ended: you paused it, or left it to go on alone",
    UNREACHABLE: "no server answers, or none could be started",
    130: "interrupted by Ctrl-C before there was a run",
}


def of_status(status: str) -> int:
    """The exit code of a command that watched a run until `status`."""
    return {"completed": OK, "failed": RUN_FAILED, "cancelled": RUN_CANCELLED}.get(status, RUN_GOES_ON)


def of_error(error: CodyError) -> int:
    """The exit code for an error. By code, not class: the client, and all it imports, may not be loaded yet."""
    return UNREACHABLE if error.code == "server_unreachable" else ERROR
