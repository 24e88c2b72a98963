"""A Redis that forgets is told at the start and whenever somebody asks; runs can be started on it all the same."""

from __future__ import annotations

import json

import pytest

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
    launched: Launch, options: tuple[str, ...], told: str | None
) -> None:
    async with plain_server(*options) as url:
        server = launched(REDIS_URL=url)
        with server.client() as client:
            ready = client.get("/readyz")
        assert server.end() == 0
    assert ready.status_code == 200
    degraded = ready.json()["degraded"]
    logged = [line for line in map(json.loads, server.stderr.splitlines()) if line["event"] == "store.degraded"]
    if told is None:
        assert (degraded, logged) == ([], [])
    else:
        assert [reason.startswith(told) for reason in degraded] == [True], degraded
        assert [(line["level"], line["reason"]) for line in logged] == [("warning", degraded[0])]
