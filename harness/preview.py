"""The prompt that a turn would get, without starting anything."""

from __future__ import annotations

import hashlib

from cody.contracts.run import PreviewAnswer
from cody.redaction import Redactor
from harness import epic, prompt
from harness.epic import Epic


def prompt_of(where: Epic, max_turns: int | None, run_id: str | None, turn: int, redactor: Redactor) -> PreviewAnswer:
    """The epic as it is now, assembled for that turn, without secrets. Raises InvalidRequest when it can't be used. Blocks."""
    text = prompt.assemble(epic.read(where), epic=where, turn=turn, max_turns=max_turns, run_id=run_id)
    raw = redactor.clean_text(text).encode()
    return PreviewAnswer(prompt=raw.decode(), sha256=hashlib.sha256(raw).hexdigest(), bytes=len(raw))
