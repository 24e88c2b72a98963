"""The list of runs: many of them, with the mouse and the keyboard, and as they change."""

from __future__ import annotations

import re
from typing import Any

from playwright.async_api import Page, expect
from redis.asyncio import Redis

from cody.store import keys
from tests.browser.conftest import ON_ONE_LOOP, Launch
from tests.browser.pages import NOTICED_MS, shot, sign_in
from tests.browser.workspaces import FOREVER, Repository
from tests.server.cody_server import OwnedRun

pytestmark = ON_ONE_LOOP

CREATED_MS = 1_700_000_000_000


async def many_runs(redis: Redis, count: int) -> None:
    """Ended runs, as many copies of one that really ended."""
    original = await OwnedRun.create(redis)
    await original.complete()
    fields: dict[Any, Any] = await redis.hgetall(keys.meta(original.run_id))
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(1, count):
            run_id = f"00000000-0000-4000-8000-{number:012d}"
            pipe.hset(keys.meta(run_id), mapping={**fields, "epicId": f"epic-{number}", "stats.tokens": number})
            pipe.zadd(keys.INDEX, {run_id: CREATED_MS + number})
        await pipe.execute()


async def test_ten_thousand_runs_are_paged_searched_sorted_and_walked_through(page: Page, launched: Launch) -> None:
    server = launched()
    async with server.redis() as redis:
        await many_runs(redis, 10_000)
    await sign_in(page, server)
    await expect(page.locator(".counted")).to_contain_text("the newest ")
    rows = page.locator(".runs-rows .runs-row")
    await expect(rows.first).to_be_visible()
    assert await rows.count() < 60
    await shot(page, "runs-many")

    await page.keyboard.press("/")
    await page.keyboard.type("epic-77")
    # All of them are loaded for it, page by page.
    await expect(page.locator(".counted")).to_have_text("111", timeout=NOTICED_MS)
    await expect(page).to_have_url(re.compile("q=epic-77"))
    await page.get_by_label("Search the runs").fill("")
    await page.get_by_role("button", name="Tokens").click()
    await expect(page.get_by_role("columnheader", name="Tokens")).to_have_attribute("aria-sort", "descending")
    await expect(rows.first).to_contain_text("epic-9999")
    await expect(page.locator(".counted")).to_have_text("10,000")

    await rows.first.get_by_role("link").focus()
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("link", name="epic-9998")).to_be_focused()
    await page.keyboard.press("End")
    await expect(page.locator("[aria-rowindex='10001'] a")).to_be_focused()
    assert await rows.count() < 60
    await page.keyboard.press("Home")
    await expect(page.get_by_role("link", name="epic-9999")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="epic-9999")).to_be_visible()
    await page.go_back()
    await expect(rows.first).to_contain_text("epic-9999")


async def test_the_list_is_live_and_filtered_by_status(page: Page, launched: Launch, repository: Repository) -> None:
    server = launched()
    await sign_in(page, server)
    await expect(page.get_by_text("No runs yet")).to_be_visible()
    run_id = repository.start(server, FOREVER, gracePeriodSec=1)
    row = page.locator(".runs-rows .runs-row")
    await expect(row).to_contain_text("running")
    await page.get_by_label("Status").select_option("completed")
    await expect(page.get_by_text("No run matches")).to_be_visible()
    await page.get_by_label("Status").select_option("running")
    await expect(row).to_contain_text(run_id[:8])
    with server.client() as client:
        client.post(f"/api/runs/{run_id}/cancel", json={}).raise_for_status()
    await expect(page.get_by_text("No run matches")).to_be_visible()
