"""What the server and the events say, in the words of the command line. Pure."""

from __future__ import annotations

import json
import re

from cody.cli.untrusted import one_line, safe

_QUOTE = "The agent's last lines:"
"""Begins the block that harness/agents/ending.py puts behind what went wrong."""
_QUOTED_LINES = 12
_OPTIONS = (
    ("config.workingDir", "--working-dir"),
    ("workingDir", "--working-dir"),
    ("config.harnessDir", "--harness-dir"),
    ("harnessDir", "--harness-dir"),
    (
        "agent 'command' needs config.command: the program and its arguments",
        "--agent command needs a command: -- PROGRAM ARGS",
    ),
    (
        "config.command is for agent 'command' only; the agent is",
        "a command behind -- is for --agent command only, not for",
    ),
    ("correct config.command", "correct the command behind --"),
    ("config.command", "the command behind --"),
    ("epicId", "--epic"),
    ("config.", "--"),
)
_DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}
_IMPOSSIBLE = re.compile(
    r"\b(pause|resume|cancel)_requested is not possible while the run is (\w+) \(possible: ([^)]*)\)"
)
_TOO_LATE = re.compile(r"\b(pause|resume|cancel)_requested is not possible any more")
_NO_TURN = re.compile(r"(has no turn \d+) in the archive")


def in_options(message: str) -> str:
    """An error of the server, with the options of `cody` in place of the API's fields and of the lifecycle's moves."""
    message = _IMPOSSIBLE.sub(_impossible, message)
    message = _TOO_LATE.sub(lambda found: f"it can't be {_DONE[found[1]]} any more", message)
    message = _NO_TURN.sub(r"\1", message)
    for field, option in _OPTIONS:
        message = message.replace(field, option)
    return message


def _impossible(found: re.Match[str]) -> str:
    moves = [move.removesuffix("_requested") for move in found[3].split(", ") if move.endswith("_requested")]
    instead = f"; possible: {', '.join(f'cody {move}' for move in moves)}" if moves else ""
    return f"the run is {found[2]}, and can't be {_DONE[found[1]]} now{instead}"


_TURNS_MADE = re.compile(r"[0-9]{1,9} of ([0-9]{1,9}) turns made")


def sentences(message: str) -> str:
    """An error's message, safe: what happened and what to do on one line, and the agent's last lines below it."""
    told, quote, last = safe(message).partition(_QUOTE)
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    finished = [line if line.endswith((".", ":", ";", "!", "?", ",")) else f"{line}." for line in lines[:-1]]
    text = one_line(" ".join([*finished, *lines[-1:]]), 2000)
    quoted = [line.rstrip()[:400] for line in last.splitlines() if line.strip()][-_QUOTED_LINES:]
    return "\n".join([f"{text} {quote}", *(f"  {line}" for line in quoted)]) if quoted else text


def first_sentence(message: str) -> str:
    """What happened, without what to do about it."""
    return one_line(safe(message).strip().partition("\n")[0], 300)


def turn_limit(line: str | None) -> int | None:
    """The limit that a completion by it tells of (`2 of 2 turns made`); turns that were cut off do not count towards it."""
    found = _TURNS_MADE.fullmatch(line or "")
    return int(found[1]) if found else None


def source_words(source: str | None, turns: int | None = None) -> str:
    """What ended a run that completed."""
    limit = "its limit of turns" if turns is None else f"its limit of {turns} turn{'' if turns == 1 else 's'}"
    known = {"stop_file": "the stop file", "log_pattern": "a line of the log", "max_turns": limit}
    return known.get(source or "", "something")


def compact_json(data: object) -> str:
    """The data of an event as JSON on one line."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str)
