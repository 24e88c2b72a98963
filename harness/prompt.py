"""The prompt of a turn, assembled from the epic's texts.

`python -m harness.prompt` prints the prompt that the next turn would get, saves it, and starts nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from cody.contracts.run import StartRunRequest
from cody.contracts.run_config import RunConfig
from cody.errors import CodyError
from harness.epic import LAST_PROMPT, Epic, EpicText, FileText, locate, read, stands_in

STATE_HEADING = "=== CURRENT STATE (READ THIS FIRST) ==="
GUIDE_HEADING = "=== COMPREHENSIVE REFERENCE GUIDE ==="
BEGIN_HEADING = "=== BEGIN WORK ==="
NEUTRALISED = "> "
"""Put before a line of a file that looks like one of the prompt's own `===` lines."""

DEFAULT_MISSION = """\
Carry the work of this epic forward: what the reference guides below describe, in the order that the last `Next` of
codys-log.md gives. Where they say nothing, look at the repository, find the most useful next step, and note it."""

_PROCESS = """\
# Process

You work unattended, in turns, in
{working_dir}
Nobody reads along and nobody answers during a turn. A turn ends when you end your answer; the next one starts with this
prompt again and the files as you left them. What is not in a file is forgotten.

1. Read the current state below first. Then look at the repository (git log, git status, the tests): it is the truth
   where a log differs from it.
2. Take one small step that can be verified. Run the tests that cover it. Never leave the tests worse than you found
   them, and never weaken a test to make it pass.
3. Before the turn ends, append a dated entry at the END of codys-log.md: what was done, the state it is in now, what
   comes next, which tests were run with which result, and open questions. Change no older entry. It is
   {codys_log}
4. Record each decision with its reason in decision-log.md. It is
   {decision_log}
5. Do not stop to ask. Write the question into user-feedback-questions.md, say there what you assume until it is
   answered, and go on with that. Answers appear in the same file: follow them. It is
   {questions}
6. When ALL of the work is done and verified, and only then, create this file, with one line that says what was
   finished:
   {stop_file}
   It ends the whole run; there is no next turn. Do not create it because a turn ends, because you are stuck, or because
   only a part is done. A statement in your answer that the work is done has no effect.

Optional telemetry: print a line like {{"__cody_event__": {{"type": "test_run_completed", "passed": 12, "failed": 0}}}}
and those who watch see it as an event; it changes nothing in the run.
"""

_FENCES = """\
Files stand between `=== BEGIN FILE ... ===` and `=== END FILE ... ===`. Text inside them is the file's; a line there
that looked like one of these markers starts with `{mark}`."""


def assemble(text: EpicText, *, epic: Epic, turn: int, max_turns: int | None, run_id: str | None) -> str:
    """The whole prompt of one turn. The same arguments give the same prompt: no time, no environment in it.

    `turn` is its number among the turns that count: those that were cut off do not.
    """
    parts = [
        "# Mission",
        *_mission(text.mission),
        _process(epic),
        _FENCES.format(mark=NEUTRALISED.rstrip()),
        STATE_HEADING,
        _file(text.codys_log),
        _file(text.decision_log),
        _file(text.questions),
        GUIDE_HEADING,
        *_guides(text),
        BEGIN_HEADING,
        _begin(epic, turn, max_turns, run_id),
    ]
    # A path that is not UTF-8 would make the prompt impossible to write.
    return "\n\n".join(part.strip("\n") for part in parts).encode("utf-8", "replace").decode() + "\n"


def _mission(mission: FileText | None) -> Iterable[str]:
    if mission is None:
        yield DEFAULT_MISSION
    else:
        yield _file(mission)
        if not mission.text.strip():
            yield DEFAULT_MISSION


def _process(epic: Epic) -> str:
    return _PROCESS.format(
        working_dir=_one_line(str(epic.working_dir)),
        codys_log=_one_line(str(epic.codys_log)),
        decision_log=_one_line(str(epic.decision_log)),
        questions=_one_line(str(epic.questions)),
        stop_file=_one_line(str(epic.stop_file)),
    )


def _guides(text: EpicText) -> Iterable[str]:
    for guide in text.guides:
        yield _file(guide)
    if not text.guides:
        yield "There are no reference guides in this epic."
    if text.guides_note is not None:
        yield f"[Cody: {_one_line(text.guides_note)}]"


def _begin(epic: Epic, turn: int, max_turns: int | None, run_id: str | None) -> str:
    count = f"turn {turn} of at most {max_turns}" if max_turns is not None else f"turn {turn}"
    of_run = f" of run {_one_line(run_id)}" if run_id is not None else ""
    return (
        f"This is {count}{of_run}. Begin now: read the state, choose the next step, do it, verify it, and write the\n"
        f"entry in codys-log.md. If all of the work is done and verified, create {_one_line(str(epic.stop_file))}"
    )


def _file(file: FileText) -> str:
    name = _one_line(file.name)
    lines = [f"=== BEGIN FILE {name} ==="]
    if file.note is not None:
        lines.append(f"[Cody: {_one_line(file.note)}]")
    body = neutralise(file.text).rstrip()
    if body:
        lines.append(body)
    elif file.note is None:
        lines.append("[Cody: the file is empty]")
    lines.append(f"=== END FILE {name} ===")
    return "\n".join(lines)


def neutralise(text: str) -> str:
    """`text` with every line that could be taken for one of the prompt's own `=== ... ===` lines marked as quoted."""
    return "".join(NEUTRALISED + line if _looks_like_marker(line) else line for line in text.splitlines(keepends=True))


def _looks_like_marker(line: str) -> bool:
    """True for a line that reads as `=== words`; a Markdown underline of `=` alone is none."""
    # Full-width signs, odd spaces and invisible characters in front read the same to a model.
    plain = line if line.isascii() else unicodedata.normalize("NFKC", line)
    start = next((at for at, sign in enumerate(plain) if unicodedata.category(sign)[0] not in "CMZ"), len(plain))
    return plain.startswith("===", start) and plain[start:].strip().strip("=") != ""


def _one_line(text: str) -> str:
    """`text` without anything that could end the line it stands in."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def save(path: Path, prompt: str) -> None:
    """Put `prompt` at `path`, whole or not at all. A link at `path` is replaced, never written through."""
    fd, temporary = tempfile.mkstemp(prefix=f"{LAST_PROMPT}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
            file.write(prompt)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cody prompt",
        description="Print the prompt that the next turn of an epic would get, and save it. Starts nothing.",
        epilog="example: cody prompt --working-dir ~/src/shop --epic current-epic | less",
    )
    parser.add_argument("--working-dir", default=".", help="the repository (default: the current folder)")
    parser.add_argument("--epic", default="current-epic", help="the epic's folder name (default: %(default)s)")
    parser.add_argument("--harness-dir", default=".cody-harness", help="inside the repository (default: %(default)s)")
    parser.add_argument("--out", type=Path, help=f"where to save it (default: {LAST_PROMPT} in the epic's folder)")
    return parser.parse_args(argv)


def _invalid(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors())


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 and the prompt on stdout, or 2 and one plain sentence on stderr."""
    arguments = _arguments(argv)
    try:
        working_dir = os.path.abspath(os.path.expanduser(arguments.working_dir))
        config = RunConfig(working_dir=working_dir, harness_dir=arguments.harness_dir)
        request = StartRunRequest(epic_id=arguments.epic, config=config)
        epic = locate(config, request.epic_id)
        prompt = assemble(read(epic), epic=epic, turn=1, max_turns=None, run_id=None)
    except ValidationError as error:
        print(f"cody prompt: {_invalid(error)}", file=sys.stderr)
        return 2
    except CodyError as error:
        print(f"cody prompt: {error.message}", file=sys.stderr)
        return 2
    instead = stands_in(epic, request.epic_id)
    if instead is not None:
        print(f"cody prompt: {instead}", file=sys.stderr)
    target: Path = arguments.out or epic.epic_dir / LAST_PROMPT
    try:
        if arguments.out is None:
            save(target, prompt)
        else:
            # The user's own choice is written to as it is: replacing it would break /dev/null and links on purpose.
            target.write_text(prompt, encoding="utf-8", newline="")
    except OSError as error:
        print(f"cody prompt: cannot save {target} ({error.strerror}): try --out FILE", file=sys.stderr)
        return 2
    print(f"saved: {target}", file=sys.stderr)
    return _print(prompt)


def _print(prompt: str) -> int:
    try:
        sys.stdout.buffer.write(prompt.encode())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # `cody prompt | head`: the reader has enough. Python's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
