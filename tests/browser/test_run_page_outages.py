"""The page of a run when things break: it tells the truth, and what was missed comes later."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from cody.store import keys
from tests.browser.conftest import ON_ONE_LOOP, Launch, frozen
from tests.browser.pages import NOTICED_MS, open_run, shot, sign_in, status
from tests.browser.workspaces import SPEAKS_OFTEN, TURNS_THAT_WAIT, Repository, archived, event_count
from tests.ports import reserved_port
from tests.server.cody_server import CodyServer, OwnedRun
from tests.sync.syncing_cody import Laptop

pytestmark = ON_ONE_LOOP

LOCK_TTL_MS = "5000"
"""The next server waits for so long until it takes up the runs of one that was killed."""


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that goes and comes back: nobody else takes it meanwhile."""
    with reserved_port() as reserved:
        yield reserved


async def numbers(page: Page, count: int) -> list[int]:
    """The numbers of all events in the log, read as a person does: from the first, screen by screen."""
    found: list[int] = []
    list_box = page.locator(".log-lines")
    await list_box.press("Home")
    await expect(page.locator('.line[data-seq="1"]')).to_be_in_viewport()
    while not found or found[-1] < count:
        shown = await page.locator(".line").evaluate_all("lines => lines.map((line) => Number(line.dataset.seq))")
        new = [number for number in shown if not found or number > found[-1]]
        assert new, f"nothing behind {found[-1:]} of {count}: {shown}"
        found += new
        await list_box.evaluate("(list) => list.scrollBy(0, list.clientHeight)")
        await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return found


async def test_a_killed_server_that_comes_back_leaves_nothing_out(
    page: Page, launched: Launch, repository: Repository, port: int
) -> None:
    server = launched(port=port, CODY_LOCK_TTL_MS=LOCK_TTL_MS)
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
    # Twice, where the turn was broken by a stall of the machine and made again.
    await page.get_by_text('before {"n":29}').first.wait_for()
    server.process.kill()
    server.wait()
    await expect(page.locator(".connection")).to_contain_text("Reconnecting")
    await shot(page, "reconnecting")

    again = launched(port=port, CODY_LOCK_TTL_MS=LOCK_TTL_MS)
    # The browser is still signed in: the page goes on by itself, behind the last event that it had.
    await expect(page.locator(".connection")).to_contain_text("Live")
    repository.give("go")
    await status(page, "completed").wait_for(timeout=NOTICED_MS)
    await expect(page.get_by_role("heading", name="You are signed out")).to_be_hidden()
    await expect(page.locator(".notice")).to_have_count(0)
    whole = event_count(again, run_id)
    await expect(page.locator(".log-foot")).to_have_text(f"{whole} lines")
    assert await numbers(page, whole) == list(range(1, whole + 1))


async def test_a_server_that_stops_answering_is_not_called_live(
    page: Page, launched: Launch, repository: Repository
) -> None:
    # Without keepalives only questions can tell that nobody is there.
    server = launched(CODY_SSE_KEEPALIVE_SEC="3600", CODY_LOCK_TTL_MS="300000")
    await page.set_viewport_size({"width": 360, "height": 740})
    await sign_in(page, server)
    run_id = repository.start(server, SPEAKS_OFTEN.replace("COUNT", "30"))
    await open_run(page, server, run_id, "?tab=events")
    await page.get_by_text("turn 1 started").wait_for()
    await expect(page.locator(".connection")).to_contain_text("Live")
    with frozen(server):
        await expect(page.locator(".connection")).to_contain_text("Reconnecting", timeout=NOTICED_MS)
        # In words that need no pointer.
        await expect(page.locator(".outage")).to_be_in_viewport()
        await expect(page.locator(".outage")).to_contain_text(
            re.compile(r"out of date: the server does not answer\..*Trying again for \d")
        )
        await shot(page, "frozen")
    await expect(page.locator(".connection")).to_contain_text("Live")
    await expect(page.locator(".outage")).to_have_count(0)
    repository.give("go")
    await status(page, "completed").wait_for(timeout=NOTICED_MS)
    await expect(page.locator(".connection")).to_contain_text("Complete")
    await expect(page.locator(".log-foot")).to_have_text(f"{event_count(server, run_id)} lines")


async def test_a_browser_that_lost_its_network_says_so_and_goes_on_when_it_is_back(
    page: Page, context: BrowserContext, server: CodyServer, repository: Repository
) -> None:
    await sign_in(page, server)
    run_id = repository.start(server, TURNS_THAT_WAIT, gracePeriodSec=1)
    await open_run(page, server, run_id)
    await expect(page.locator(".connection")).to_contain_text("Live")
    await context.set_offline(True)
    await expect(page.locator(".connection")).to_contain_text("Reconnecting")
    await context.set_offline(False)
    await expect(page.locator(".connection")).to_contain_text("Live")


async def test_a_stream_that_is_refused_says_why_and_is_not_called_live(
    page: Page, server: CodyServer, repository: Repository
) -> None:
    await sign_in(page, server)
    run_id = repository.start(server, TURNS_THAT_WAIT, gracePeriodSec=1)
    refusal = {"error": {"code": "forbidden", "message": "this token may not follow runs", "details": {}}}
    await page.route(
        "**/stream?*", lambda route: route.fulfill(status=403, json=refusal, content_type="application/json")
    )
    await open_run(page, server, run_id)
    await status(page, "running").wait_for()
    await expect(page.get_by_role("alert")).to_contain_text("this token may not follow runs")
    await expect(page.locator(".connection")).to_contain_text("Not live")


async def away_while_events_are_trimmed(
    page: Page, context: BrowserContext, launched: Launch, port: int, **settings: str
) -> tuple[CodyServer, OwnedRun]:
    """A page that saw 21 events of a run, and comes back when 121 were written and Redis has the last 10 only."""
    server = launched(port=port, **settings)
    await sign_in(page, server)
    async with server.redis() as redis:
        run = await OwnedRun.create(redis)
        await run.add(20)
        await open_run(page, server, run.run_id, "?tab=events")
        await expect(page.locator(".log-foot")).to_have_text("21 lines")
    server.end()
    (server.state_dir / "sessions.json").unlink()
    again = launched(port=port, **settings)
    # Until somebody signs in the page can't read: time to take events away.
    await page.get_by_role("heading", name="You are signed out").wait_for()
    await shot(page, "signed-out")
    async with again.redis() as redis:
        run.redis = redis
        await run.add(100)
        if settings.get("CODY_PROJECTOR") != "off":
            await archived(again, run.run_id, run.last_seq)
        await redis.xtrim(keys.events(run.run_id), maxlen=10, approximate=False)
    other = await context.new_page()
    await sign_in(other, again)
    await other.close()
    await expect(page.get_by_role("heading", name="You are signed out")).to_be_hidden()
    await expect(page.locator(".connection")).to_contain_text("Live")
    return again, run


async def test_events_that_the_server_let_go_of_come_from_the_archive(
    page: Page, context: BrowserContext, launched: Launch, port: int
) -> None:
    server, run = await away_while_events_are_trimmed(page, context, launched, port)
    await expect(page.locator(".notice")).to_contain_text("read them from the archive: nothing is missing")
    await expect(page.locator(".log-foot")).to_have_text("121 lines")
    await shot(page, "from-the-archive")
    assert await numbers(page, 121) == list(range(1, 122))
    async with server.redis() as redis:
        run.redis = redis
        await run.complete()
    await status(page, "completed").wait_for()
    await expect(page.locator(".log-foot")).to_have_text("122 lines")


async def test_an_archive_that_does_not_answer_does_not_hold_up_what_is_new(
    page: Page, context: BrowserContext, launched: Launch, port: int
) -> None:
    over = asyncio.Event()

    async def stall(route: Route) -> None:
        await over.wait()

    await page.route("**/export?*", stall)
    try:
        server, run = await away_while_events_are_trimmed(page, context, launched, port)
        await expect(page.locator(".notice")).to_contain_text("It reads them from the archive")
        await expect(page.locator(".notice-warn")).to_contain_text("archive did not answer", timeout=NOTICED_MS)
        await page.get_by_text("events 22 to 111 are no longer kept").wait_for()
        async with server.redis() as redis:
            run.redis = redis
            await run.complete()
        await status(page, "completed").wait_for()
        await expect(page.locator(".log-foot")).to_have_text("33 lines")
    finally:
        over.set()


async def test_events_that_are_gone_for_good_are_told_of(
    page: Page, context: BrowserContext, launched: Launch, port: int
) -> None:
    server, run = await away_while_events_are_trimmed(page, context, launched, port, CODY_PROJECTOR="off")
    # 21 that were seen, the line about the gap, the 10 that are left.
    await expect(page.locator(".log-foot")).to_have_text("32 lines")
    await page.get_by_text("events 22 to 111 are no longer kept").wait_for()
    await expect(page.locator(".notice-warn")).to_contain_text("has let go of events")
    async with server.redis() as redis:
        run.redis = redis
        await run.complete()
    await status(page, "completed").wait_for()
    await expect(page.locator(".log-foot")).to_have_text("33 lines")


async def test_a_run_that_only_the_archive_has_is_shown_from_there(
    page: Page, server: CodyServer, repository: Repository
) -> None:
    await sign_in(page, server)
    run_id = repository.start(server, "say(type='step', n=1)", maxTurns=2)
    await open_run(page, server, run_id, "?tab=events")
    await status(page, "completed").wait_for()
    whole = event_count(server, run_id)
    await archived(server, run_id, whole)
    async with server.redis() as redis:
        # As after the days that Redis keeps a run.
        await redis.delete(keys.meta(run_id), *keys.of_run(run_id))
        await redis.zrem(keys.INDEX, run_id)
    await page.reload()
    await expect(page.locator(".connection")).to_contain_text("Complete")
    await expect(page.locator(".log-foot")).to_have_text(f"{whole} lines")
    await page.get_by_role("tab", name="Turn", exact=True).click()
    await expect(page.locator(".turn-row")).to_have_count(2)
    await page.goto(f"{server.url}/runs/00000000-0000-4000-8000-000000000000")
    await expect(page.get_by_role("heading", name="This run can't be shown")).to_be_visible()


async def test_a_run_of_another_machine_is_shown_where_it_was_sent(
    page: Page, server: CodyServer, launched: Launch, repository: Repository
) -> None:
    run_id = repository.start(server, "say(type='step', n=TURN)", maxTurns=2)
    whole = await asyncio.to_thread(event_count, server, run_id)
    await archived(server, run_id, whole)
    second = launched()
    job = json.loads(
        await asyncio.to_thread(Laptop(server.state_dir, second.url, second.token), "push", run_id[:8], "--json")
    )
    assert job["state"] == "succeeded"
    await archived(second, run_id, whole)
    await sign_in(page, second)
    row = page.locator(".runs-rows .runs-row")
    await expect(row).to_contain_text(run_id[:8])
    await row.get_by_role("link").click()
    await status(page, "completed").wait_for()
    await expect(page.locator(".connection")).to_contain_text("Complete")
    await expect(page.locator(".turn-row")).to_have_count(2)
    await expect(page.locator(".notice")).to_have_count(0)
    await page.get_by_role("tab", name="Events").click()
    await expect(page.locator(".log-foot")).to_have_text(f"{whole} lines")
