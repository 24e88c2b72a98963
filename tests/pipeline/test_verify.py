"""`verify_pipeline` proves that an answer has come to its end in the archive, not that something is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from cody.pipeline.verify import NotVerified, verify_pipeline
from cody.settings import Settings
from tests.pipeline.wire_server import WireServer, sse

LAST_DELTA = b'"delta":"!"'


async def test_an_answer_that_is_archived_whole_is_verified(tmp_path: Path) -> None:
    verified = await verify_pipeline(Settings(state_dir=tmp_path), "openai", None, timeout_s=30, replay=True)
    assert (verified.response.status, verified.replayed) == ("complete", True)


async def test_without_a_projector_nothing_is_verified(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, projector=False)
    with pytest.raises(NotVerified, match="its row is missing after 2 s; is a projector running"):
        await verify_pipeline(settings, "openai", None, timeout_s=2, replay=True)


async def test_a_row_that_is_there_but_not_at_its_end_is_not_enough(tmp_path: Path) -> None:
    async with WireServer(sse("openai", "message").broken("silence", after=LAST_DELTA)) as wire:
        settings = Settings(state_dir=tmp_path, openai_api_key="k", openai_base_url=wire.url)
        with pytest.raises(NotVerified, match="its row is in_progress after 10 s"):
            await verify_pipeline(settings, "openai", None, timeout_s=10, replay=False)
