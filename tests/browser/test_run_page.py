"""The page of a run, on a real server with a real agent: followed, steered, and told the truth by when things break."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from cody.store import keys
from tests.browser.conftest import WAIT_MS, Launch, shot, sign_in
from tests.browser.workspaces import Repository, event_count, read
from tests.server.cody_server import CodyServer, OwnedRun

expect.set_options(timeout=WAIT_MS)

TURNS_THAT_WAIT = """
    say(type="step", n=TURN)
    wait_for(f"go-{TURN}")
"""
SPEAKS_OFTEN = """
    wait_for("go")
    for n in range(COUNT): say(type="step", n=n)
    STOP.write_text("done")
"""
SHIFTS = """() => {
  window.shifts = []
  new PerformanceObserver((list) => {
    for (const shift of list.getEntries())
      window.shifts.push({ value: shift.value, of: shift.sources.map((one) => one.node?.className ?? one.node?.nodeName) })
  }).observe({ type: 'layout-shift' })
}"""


def status(page: Page, wanted: str) -> Any:
    return page.locator(f".run-title .status-{wanted}")


async def open_run(page: Page, server: CodyServer, run_id: str, query: str = "") -> None:
    await page.goto(f"{server.url}/runs/{run_id}{query}")
    await page.locator(".run-title h1").wait_for()


@pytest.fixture
def repository(folder: Path) -> Repository:
    return Repository.make(folder)


async def test_a_run_is_paused_resumed_and_cancelled(page: Page, launched: Launch, repository: Repository) -> None:
    server = launched()
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
    page: Page, launched: Launch, repository: Repository
) -> None:
    server = launched()
    await sign_in(page, server)
    run_id = repository.start(server, TURNS_THAT_WAIT, gracePeriodSec=1)
    reads_work = True

    async def answer(route: Route) -> None:
        is_stream = route.request.url.endswith("/stream?from=0")
        if route.request.method == "GET" and (is_stream or not reads_work):
            await route.abort("connectionrefused")
        else:
            await route.continue_()

    await page.route("**/api/runs/**", answer)
    await open_run(page, server, run_id)
    await status(page, "running").wait_for()
    reads_work = False
    with server.client() as client:
        client.post(f"/api/runs/{run_id}/cancel", json={}).raise_for_status()
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("alert")).to_contain_text(re.compile("Could not pause the run: .*cancel"))
    await status(page, "running").wait_for()
    await expect(page.locator(".connection")).to_contain_text("Reconnecting")
    reads_work = True
    await status(page, "cancelled").wait_for()


@pytest.mark.parametrize("count", [500, 49_900])
async def test_many_events_are_all_there_and_few_are_in_the_page(
    page: Page, launched: Launch, repository: Repository, count: int
) -> None:
    server = launched()
    await sign_in(page, server)
    run_id = repository.start(server, SPEAKS_OFTEN.replace("COUNT", str(count)))
    await open_run(page, server, run_id, "?tab=events")
    await page.get_by_text("turn 1 started").wait_for()
    await page.evaluate(SHIFTS)
    repository.give("go")
    await status(page, "completed").wait_for(timeout=60_000)

    whole = event_count(server, run_id)
    assert whole > count
    await expect(page.locator(".log-foot")).to_have_text(f"{whole:,} lines", timeout=60_000)
    # It followed: the last event is in sight, and only what is in sight is in the page.
    await expect(page.locator(f'.line[data-seq="{whole}"]')).to_be_in_viewport()
    assert await page.locator(".line").count() < 120
    moved = [shift for shift in await page.evaluate("window.shifts") if shift["value"] > 0.02]
    assert not moved, moved

    await page.get_by_label("Search the log").fill(f'"n":{count - 1}')
    await expect(page.locator(".log-foot")).to_contain_text("1 of")
    await page.get_by_label("Search the log").fill("")
    await page.get_by_role("button", name="agent").click()
    await expect(page.locator(".log-foot")).to_contain_text(f"{whole - count:,} of {whole:,} lines")
    await page.get_by_role("button", name="agent").click()
    await page.locator(".log-lines").press("Home")
    await expect(page.get_by_label("Follow")).not_to_be_checked()
    await expect(page.locator('.line[data-seq="1"]')).to_be_in_viewport()


async def test_a_killed_server_that_comes_back_leaves_nothing_out(
    page: Page, context: BrowserContext, launched: Launch, repository: Repository
) -> None:
    server = launched(CODY_LOCK_TTL_MS="1500")
    await sign_in(page, server)
    run_id = repository.start(
        server,
        """
        for n in range(30): say(type="before", n=n)
        wait_for("go")
        for n in range(30): say(type="after", n=n)
        STOP.write_text("done")
        """,
    )
    await open_run(page, server, run_id, "?tab=events")
    await page.get_by_text('before {"n":29}').wait_for()
    server.process.kill()
    server.wait()
    await expect(page.locator(".connection")).to_contain_text("Reconnecting")
    await shot(page, "reconnecting")

    again = launched(port=server.port, CODY_LOCK_TTL_MS="1500")
    # The sessions of the old server are gone with it: the page says so, and goes on when there is a new one.
    await page.get_by_role("heading", name="You are signed out").wait_for()
    await shot(page, "signed-out")
    other = await context.new_page()
    await sign_in(other, again)
    await other.close()
    await expect(page.get_by_role("heading", name="You are signed out")).to_be_hidden()
    repository.give("go")
    await status(page, "completed").wait_for(timeout=60_000)
    await expect(page.locator(".log-foot")).to_have_text(f"{event_count(again, run_id)} lines")


async def test_events_that_are_gone_are_told_of(page: Page, context: BrowserContext, launched: Launch) -> None:
    server = launched()
    await sign_in(page, server)
    async with server.redis() as redis:
        run = await OwnedRun.create(redis)
        await run.add(20)
        await open_run(page, server, run.run_id, "?tab=events")
        await expect(page.locator(".log-foot")).to_have_text("21 lines")
    server.end()
    again = launched(port=server.port)
    # Until somebody signs in the page can't read: time to take events away.
    await page.get_by_role("heading", name="You are signed out").wait_for()
    async with again.redis() as redis:
        run.redis = redis
        await run.add(100)
        await redis.xtrim(keys.events(run.run_id), maxlen=10, approximate=False)
        other = await context.new_page()
        await sign_in(other, again)
        await expect(page.locator(".connection")).to_contain_text("Live")
        # 21 that were seen, the line about the gap, the 10 that are left.
        await expect(page.locator(".log-foot")).to_have_text("32 lines")
        await page.get_by_text("events 22 to 111 are no longer kept").wait_for()
        await expect(page.locator(".notice-warn")).to_contain_text("let go of events")
        await run.complete()
        await status(page, "completed").wait_for()
        await expect(page.locator(".log-foot")).to_have_text("33 lines")


async def test_output_is_coloured_text_and_never_markup(page: Page, launched: Launch, repository: Repository) -> None:
    server = launched()
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
