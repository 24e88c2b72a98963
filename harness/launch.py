"""A program to start, as the guard gets it; and what to tell people when it could not be started. Pure."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cody.errors import CodyError
from harness.guard import pack_launch
from harness.guard_status import GuardFailed, SpawnFailed

GUARD_ID = "CODY_GUARD_ID"
# In the environment of every process of a turn, its guard included, so that a sweep finds them. No name here may look
# like a secret's (KEY, TOKEN, SECRET): codex hides those from the commands that it runs.
MARKERS = (GUARD_ID, "CODY_RUN_ID", "CODY_FENCE")


class AgentStartError(CodyError):
    """The agent's program could not be started; the message says why and what mends it. No process is left."""

    code: ClassVar[str] = "agent_start_failed"


class AgentStartCutOff(AgentStartError):
    """Not the program's fault: its guard was killed, or its time was over before it ran. Another try is worth it."""

    code: ClassVar[str] = "agent_start_cut_off"


@dataclass(frozen=True)
class Launch:
    """`argv[0]` is a path, or a name for the PATH of `env`. `env` is all of the environment. `stdin` is a file.

    `cwd` is a real path, absolute and without links: the guard follows none on the way to it.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    stdin: Path


def packed(launch: Launch, guard_id: str) -> bytes:
    """The launch with its guard's marker, in the guard's format. Raises AgentStartError for what no program can get."""
    env = {**launch.env, GUARD_ID: guard_id}
    if not launch.argv:
        raise AgentStartError("The agent's command is empty: name a program.")
    for name in env:
        if not name or "=" in name:
            raise AgentStartError(f"{name!r} cannot be the name of an environment variable: remove it from env.")
    if any("\0" in text for text in (*launch.argv, str(launch.cwd), *env, *env.values())):
        raise AgentStartError(f"A NUL character in the command, the folder or env of {launch.argv[0]!r}: remove it.")
    try:
        return pack_launch(
            [os.fsencode(arg) for arg in launch.argv],
            os.fsencode(launch.cwd),
            {os.fsencode(name): os.fsencode(value) for name, value in env.items()},
        )
    except UnicodeEncodeError as error:
        raise AgentStartError(f"The command or env of {launch.argv[0]!r} is not valid text: {error}.") from error


def guard_environment(launch: Launch, guard_id: str) -> dict[str, str]:
    """The markers and nothing else: no variable meant for the agent (LD_PRELOAD, say) may change its guard."""
    env = {**launch.env, GUARD_ID: guard_id}
    return {name: env[name] for name in MARKERS if name in env}


def start_error(launch: Launch, failure: SpawnFailed | GuardFailed | None, reason: str) -> AgentStartError:
    """Why the guard has ended without a running agent."""
    program = launch.argv[0]
    match failure:
        case SpawnFailed(number, stage):
            name = errno.errorcode.get(number, str(number))
            text = _folder_text(launch, number) if stage == "cwd" else _program_text(launch, number)
            return AgentStartError(
                text, details={"program": program, "cwd": str(launch.cwd), "errno": name, "stage": stage}
            )
        case GuardFailed(message):
            return AgentStartCutOff(f"The guard of {program!r} failed at the start: {message}. Try again.")
        case _ if reason == "guard_died":
            return AgentStartCutOff(f"The guard of {program!r} was killed before {program!r} ran. Try again.")
        case _:
            return AgentStartCutOff(f"{program!r} was not started, it was to end before it ran ({reason}).")


def _folder_text(launch: Launch, number: int) -> str:
    match number:
        case errno.ENOENT:
            return f"The working folder {launch.cwd} does not exist: create it, or name another."
        case errno.ENOTDIR | errno.ELOOP:
            return (
                f"The working folder {launch.cwd} is not a folder, or a link stands on the way to it now, which is not "
                "followed: name the real folder."
            )
        case errno.EACCES:
            return f"The working folder {launch.cwd} may not be entered by this user: change its mode, or name another."
        case _:
            return f"The working folder {launch.cwd} cannot be entered: {os.strerror(number)}."


def _program_text(launch: Launch, number: int) -> str:
    program = launch.argv[0]
    match number:
        case errno.ENOENT if "/" in program:
            return f"The program {program!r}, or the interpreter in its first line, does not exist: install it."
        case errno.ENOENT:
            path = launch.env.get("PATH", os.defpath)
            return f"The program {program!r} was not found on PATH ({path}): install it, or give its full path."
        case errno.EACCES:
            return f"The program {program!r} is not executable by this user: chmod +x it, or name another."
        case errno.ENOEXEC:
            return f"The program {program!r} is neither a binary for this machine nor a script with a #! line."
        case errno.E2BIG:
            return f"The arguments and environment of {program!r} are too long for this system: shorten env."
        case errno.ETIME:
            return f"The program {program!r} was not started: its deadline had passed before. Try again."
        case _:
            return f"The program {program!r} cannot be executed: {os.strerror(number)}."
