"""The page of a run, on a real server with a real agent: followed and steered."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import ON_ONE_LOOP
from tests.browser.pages import NOTICED_MS, WAIT_MS, open_run, painted, shot, sign_in, status
from tests.browser.workspaces import SPEAKS_OFTEN, TURNS_THAT_WAIT, Repository, event_count, read
from tests.server.cody_server import CodyServer

pytestmark = ON_ONE_LOOP

SHIFTS = """() => {
  let shifts = []
  const take = (entries) => {
    for (const shift of entries)
      shifts.push({ value: shift.value, of: shift.sources.map((one) => one.node?.className ?? one.node?.nodeName) })
  }
  const observer = new PerformanceObserver((list) => take(list.getEntries()))
  observer.observe({ type: 'layout-shift' })
  window.shiftsSince = () => {
    take(observer.takeRecords())
    return shifts.splice(0)
  }
}"""
FRAMES = """() => {
  window.frames60 = 0
  const count = () => { window.frames60++; requestAnimationFrame(count) }
  requestAnimationFrame(count)
}"""


async def moved(page: Page) -> list[Any]:
    """What has moved in the page since the last look without being asked to, beyond what the eye would miss."""
    return [shift for shift in await page.evaluate("window.shiftsSince()") if shift["value"] > 0.02]


async def watch_for_moves(page: Page) -> None:
    """From here on, of a page that is drawn."""
    await expect(page.locator(".connection")).to_contain_text("Live")
    await painted(page)
    await page.evaluate(SHIFTS)


async def test_a_run_is_paused_resumed_and_cancelled(page: Page, server: CodyServer, repository: Repository) -> None:
    await sign_in(page, server)
    run_id = repository.start(server, TURNS_THAT_WAIT, gracePeriodSec=1)
    await open_run(page, server, run_id)
    await status(page, "running").wait_for()

    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("button", name="Pauses after this turn")).to_be_disabled()
    repository.give("go-1")
    await status(page, "paused").wait_for()

    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator("#turn-2")).to_contain_text("running")
    await status(page, "running").wait_for()

    await page.get_by_role("button", name="Cancel …").click()
    await expect(page.get_by_role("dialog")).to_contain_text("turn 2 is not finished")
    await shot(page, "cancel")
    await page.get_by_role("button", name="Keep it").click()
    await expect(page.get_by_role("dialog")).to_be_hidden()
    assert read(server, f"/api/runs/{run_id}")["status"] == "running"

    await page.get_by_role("button", name="Cancel …").click()
    await page.get_by_role("button", name="Cancel the run").click()
    await status(page, "cancelled").wait_for()
    await expect(page.locator(".connection")).to_contain_text("Complete")
    assert read(server, f"/api/runs/{run_id}")["status"] == "cancelled"


async def test_a_refused_click_shows_the_servers_words_and_changes_nothing(
    page: Page, server: CodyServer, repository: Repository
) -> None:
    await sign_in(page, server)
    run_id = repository.start(server, TURNS_THAT_WAIT, gracePeriodSec=1)
    reads_work = True
    read_failed = asyncio.Event()

    async def answer(route: Route) -> None:
        is_stream = route.request.url.endswith("/stream?from=0")
        if route.request.method == "GET" and (is_stream or not reads_work):
            if not is_stream:
                read_failed.set()
            await route.abort("connectionrefused")
        else:
            await route.continue_()

    await page.route("**/api/runs/**", answer)
    await open_run(page, server, run_id)
    await status(page, "running").wait_for()
    reads_work = False
    # The page reads one behind the other: none that came through is under way any more.
    await asyncio.wait_for(read_failed.wait(), WAIT_MS / 1000)
    with server.client() as client:
        client.post(f"/api/runs/{run_id}/cancel", json={}).raise_for_status()
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("alert")).to_contain_text(re.compile("Could not pause the run: .*cancel"))
    await status(page, "running").wait_for()
    await expect(page.locator(".connection")).to_contain_text("Reconnecting")
    reads_work = True
    await status(page, "cancelled").wait_for()


@pytest.mark.parametrize("count", [500, 50_000])
async def test_many_events_are_all_there_and_few_are_in_the_page(
    page: Page, server: CodyServer, repository: Repository, count: int
) -> None:
    await sign_in(page, server)
    run_id = repository.start(server, SPEAKS_OFTEN.replace("COUNT", str(count)))
    await open_run(page, server, run_id, "?tab=events")
    await page.get_by_text("turn 1 started").wait_for()
    await watch_for_moves(page)
    repository.give("go")
    await status(page, "completed").wait_for(timeout=NOTICED_MS)

    whole = event_count(server, run_id)
    assert whole > count
    await expect(page.locator(".log-foot")).to_have_text(f"{whole:,} lines", timeout=NOTICED_MS)
    # It followed: the last event is in sight, and only what is in sight is in the page.
    await expect(page.locator(f'.line[data-seq="{whole}"]')).to_be_in_viewport()
    assert await page.locator(".line").count() < 120
    assert not await moved(page)

    await page.get_by_label("Search the log").fill(f'"n":{count - 1}')
    await expect(page.locator(".log-foot")).to_contain_text("1 of")
    await page.get_by_label("Search the log").fill("")
    await page.get_by_role("button", name="agent").click()
    await expect(page.locator(".log-foot")).to_contain_text(f"{whole - count:,} of {whole:,} lines")
    await page.get_by_role("button", name="agent").click()
    await page.locator(".log-lines").press("Home")
    await expect(page.get_by_label("Follow")).not_to_be_checked()
    await expect(page.locator('.line[data-seq="1"]')).to_be_in_viewport()


async def test_sixty_events_a_second_leave_the_page_usable_and_still(
    page: Page, server: CodyServer, repository: Repository
) -> None:
    await sign_in(page, server)
    run_id = repository.start(
        server,
        """
        wait_for("go")
        n = 0
        while not Path("enough").exists():
            say(type="file_written", path=f"src/module_{n % 40}.py")
            say(type="step", n=n)
            say(type="token_usage", inputTokens=100, outputTokens=1, totalTokens=101)
            n += 1
            time.sleep(0.05)
        STOP.write_text("done")
        """,
    )
    await open_run(page, server, run_id)
    await page.locator(".turn-panel").wait_for()
    await watch_for_moves(page)
    await page.evaluate(FRAMES)
    repository.give("go")
    seen = page.locator(".turn-panel .section", has_text="Files")
    # The agent's forty, and the one that the test gave it.
    await expect(seen).to_contain_text("41")
    await page.wait_for_function("() => window.frames60 > 20")
    assert not await moved(page)
    # While they come: another tab, a filter, a search, and back.
    await page.get_by_role("tab", name="Events").click()
    await page.locator(".chips").get_by_role("button", name="tokens").click()
    await page.get_by_label("Search the log").fill('step {"n":3}')
    await expect(page.locator(".log-foot")).to_contain_text("1 of")
    await page.get_by_role("tab", name="Turn", exact=True).click()
    await expect(status(page, "running")).to_be_visible()
    await page.locator(".turn-panel").wait_for()
    await painted(page)
    # What the reader did may move things; what comes after may not.
    await moved(page)
    repository.give("enough")
    await status(page, "completed").wait_for()
    assert not await moved(page)


async def test_output_is_coloured_text_and_never_markup(page: Page, server: CodyServer, repository: Repository) -> None:
    await sign_in(page, server)
    run_id = repository.start(
        server,
        r"""
        print("\x1b[1;32mgreen\x1b[0m <img src=x onerror=document.title='broken'> \x1b]0;title\x07after")
        print("<script>document.title='broken'</script>", file=sys.stderr)
        LOG.write_text(LOG.read_text() + "- <b>log</b>\n")
        STOP.write_text("<i>done</i>")
        """,
    )
    await open_run(page, server, run_id, "?tab=events")
    await status(page, "completed").wait_for()
    line = page.locator(".line", has_text="green")
    await expect(line.locator(".line-text")).to_have_text("green <img src=x onerror=document.title='broken'> after")
    await expect(line.locator(".ansi-fg-2.ansi-bold")).to_have_text("green")
    await page.get_by_role("tab", name="Logs").click()
    await expect(page.locator(".log-parts").first).to_contain_text("<b>log</b>")
    await expect(page.locator(".run-head")).to_contain_text("<i>done</i>")
    assert await page.locator("main img, main script, main b, main i").count() == 0
    assert "broken" not in await page.title()
