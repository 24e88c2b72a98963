"""A Redis that forgets is told at the start and whenever somebody asks; runs can be started on it all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Wait
from tests.server.conftest import Launch
from tests.store.test_connection import plain_server


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--appendonly", "no", "--save", ""), "Redis has no persistence: a restart loses every run"),
        (("--appendonly", "no", "--save", "3600 1"), "Redis keeps snapshots only"),
        (("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""), None),
    ],
    ids=["nothing", "snapshots", "everything"],
)
async def test_a_redis_that_does_not_keep_what_it_is_given_is_told(
    launched: Launch, eventually: Wait, options: tuple[str, ...], told: str | None
) -> None:
    ready: dict[str, Any] = {}
    async with plain_server(*options) as url:
        server = launched(REDIS_URL=url)
        with server.client() as client:

            def has_its_archive() -> bool:
                """Loaded beside the start: until then that is told as a weakness, too."""
                ready.update(client.get("/readyz").raise_for_status().json())
                return str(ready["checks"]["sql"]).startswith("ok")

            await eventually(has_its_archive)
        assert server.end() == 0
    degraded = ready["degraded"]
    logged = [line for line in map(json.loads, server.stderr.splitlines()) if line["event"] == "store.degraded"]
    if told is None:
        assert (degraded, logged) == ([], [])
    else:
        assert [reason.startswith(told) for reason in degraded] == [True], degraded
        assert [(line["level"], line["reason"]) for line in logged] == [("warning", degraded[0])]
