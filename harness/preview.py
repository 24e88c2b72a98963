"""The prompt that a turn would get, without starting anything."""

from __future__ import annotations

import asyncio
import hashlib

from cody.contracts.run import PreviewAnswer
from cody.contracts.run_config import RunConfig
from cody.redaction import Redactor
from harness import epic, prompt


async def prompt_of(
    config: RunConfig, epic_id: str, run_id: str | None, turn: int, redactor: Redactor
) -> PreviewAnswer:
    """The epic as it is now, assembled for that turn, without secrets. Raises InvalidRequest when the epic can't be used."""

    def assembled() -> str:
        where = epic.locate(config, epic_id)
        return prompt.assemble(epic.read(where), epic=where, turn=turn, max_turns=config.max_turns, run_id=run_id)

    raw = redactor.clean_text(await asyncio.to_thread(assembled)).encode()
    return PreviewAnswer(prompt=raw.decode(), sha256=hashlib.sha256(raw).hexdigest(), bytes=len(raw))
