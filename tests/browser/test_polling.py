"""The pages that ask the server again and again: one question at a time, and what they say when nobody answers."""

from __future__ import annotations

import asyncio

from playwright.async_api import Page, Route, expect

from tests.browser.conftest import ON_ONE_LOOP, NewPage, frozen
from tests.browser.pages import NOTICED_MS, sign_in
from tests.server.cody_server import CodyServer

pytestmark = ON_ONE_LOOP


async def test_no_page_calls_a_server_live_that_stopped_answering(
    page: Page, new_page: NewPage, server: CodyServer
) -> None:
    await sign_in(page, server)
    pages = {"/": page, "/new": await new_page(), "/health": await new_page()}
    for path, one in pages.items():
        await one.goto(server.url + path)
    for path, one in pages.items():
        await expect(one.locator(".connection"), path).to_contain_text("Live")
        # Else it would ask less often, and be slower to know.
        assert await one.evaluate("document.visibilityState") == "visible", path
    with frozen(server):
        for path, one in pages.items():
            await expect(one.locator(".connection"), path).to_contain_text("Reconnecting", timeout=NOTICED_MS)
            await expect(one.locator(".outage"), path).to_contain_text("the server does not answer")
    for path, one in pages.items():
        await expect(one.locator(".connection"), path).to_contain_text("Live")


async def test_a_page_that_is_looked_at_again_asks_one_question_at_a_time(page: Page, server: CodyServer) -> None:
    await sign_in(page, server)
    free = asyncio.Event()
    asked = asyncio.Semaphore(0)
    under_way: list[int] = [0]

    async def slowly(route: Route) -> None:
        under_way.append(under_way[-1] + 1)
        asked.release()
        await free.wait()
        answer = await route.fetch()
        # Before the page has the answer: it may ask again in the same moment.
        under_way.append(under_way[-1] - 1)
        await route.fulfill(response=answer)

    await page.route("**/api/runs?*", slowly)
    await asked.acquire()
    for _ in range(5):
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    free.set()
    for _ in range(3):
        await asked.acquire()
    assert max(under_way) == 1
    await page.unroute_all(behavior="ignoreErrors")
