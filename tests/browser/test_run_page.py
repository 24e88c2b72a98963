"""The page of a run, on a real server with a real agent: followed, steered, and told the truth by when things break."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from cody.store import keys
from tests.browser.conftest import ON_ONE_LOOP, WAIT_MS, Launch, frozen, shot, sign_in
from tests.browser.workspaces import Repository, event_count, read
from tests.server.cody_server import CodyServer, OwnedRun
from tests.sync.syncing_cody import Laptop

pytestmark = ON_ONE_LOOP
expect.set_options(timeout=WAIT_MS)

NOTICED_MS = 60_000
"""A server that stops answering is given some seconds before it is called lost."""

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


async def moved(page: Page) -> list[Any]:
    """What moved in the page without being asked to, beyond what the eye would miss."""
    return [shift for shift in await page.evaluate("window.shifts") if shift["value"] > 0.02]


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


@pytest.mark.parametrize("count", [500, 50_000])
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


async def test_a_killed_server_that_comes_back_leaves_nothing_out(
    page: Page, launched: Launch, repository: Repository
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
    # The browser is still signed in: the page goes on by itself, behind the last event that it had.
    await expect(page.locator(".connection")).to_contain_text("Live")
    repository.give("go")
    await status(page, "completed").wait_for(timeout=60_000)
    await expect(page.get_by_role("heading", name="You are signed out")).to_be_hidden()
    await expect(page.locator(".notice")).to_have_count(0)
    whole = event_count(again, run_id)
    await expect(page.locator(".log-foot")).to_have_text(f"{whole} lines")
    await page.locator(".log-lines").press("Home")
    assert await numbers(page, whole) == list(range(1, whole + 1))


async def numbers(page: Page, count: int) -> list[int]:
    """The numbers of all events in the log, read as a person does: from the first, screen by screen."""
    found: list[int] = []
    list_box = page.locator(".log-lines")
    while not found or found[-1] < count:
        shown = await page.locator(".line").evaluate_all("lines => lines.map((line) => Number(line.dataset.seq))")
        new = [number for number in shown if not found or number > found[-1]]
        assert new, f"nothing behind {found[-1:]} of {count}: {shown}"
        found += new
        await list_box.evaluate("(list) => list.scrollBy(0, list.clientHeight)")
        await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return found


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
    await status(page, "completed").wait_for(timeout=60_000)
    await expect(page.locator(".connection")).to_contain_text("Complete")
    await expect(page.locator(".log-foot")).to_have_text(f"{event_count(server, run_id)} lines")


async def test_a_browser_that_lost_its_network_says_so_and_goes_on_when_it_is_back(
    page: Page, context: BrowserContext, launched: Launch, repository: Repository
) -> None:
    server = launched()
    await sign_in(page, server)
    run_id = repository.start(server, TURNS_THAT_WAIT, gracePeriodSec=1)
    await open_run(page, server, run_id)
    await expect(page.locator(".connection")).to_contain_text("Live")
    await context.set_offline(True)
    await expect(page.locator(".connection")).to_contain_text("Reconnecting")
    await context.set_offline(False)
    await expect(page.locator(".connection")).to_contain_text("Live")


async def test_a_stream_that_is_refused_says_why_and_is_not_called_live(
    page: Page, launched: Launch, repository: Repository
) -> None:
    server = launched()
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
    page: Page, context: BrowserContext, launched: Launch, **settings: str
) -> tuple[CodyServer, OwnedRun]:
    """A page that saw 21 events of a run, and comes back when 121 were written and Redis has the last 10 only."""
    server = launched(**settings)
    await sign_in(page, server)
    async with server.redis() as redis:
        run = await OwnedRun.create(redis)
        await run.add(20)
        await open_run(page, server, run.run_id, "?tab=events")
        await expect(page.locator(".log-foot")).to_have_text("21 lines")
    server.end()
    (server.state_dir / "sessions.json").unlink()
    again = launched(port=server.port, **settings)
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


async def archived(server: CodyServer, run_id: str, seq: int) -> None:
    """Wait until the archive has the run's events up to this one."""
    with server.client() as client:
        async with asyncio.timeout(30):
            while f'"seq":{seq},' not in client.get(f"/api/runs/{run_id}/export").text.replace(" ", ""):
                await asyncio.to_thread(client.get, "/api/health")


async def test_events_that_the_server_let_go_of_come_from_the_archive(
    page: Page, context: BrowserContext, launched: Launch
) -> None:
    server, run = await away_while_events_are_trimmed(page, context, launched)
    await expect(page.locator(".notice")).to_contain_text("read them from the archive: nothing is missing")
    await expect(page.locator(".log-foot")).to_have_text("121 lines")
    await shot(page, "from-the-archive")
    await page.locator(".log-lines").press("Home")
    assert await numbers(page, 121) == list(range(1, 122))
    async with server.redis() as redis:
        run.redis = redis
        await run.complete()
    await status(page, "completed").wait_for()
    await expect(page.locator(".log-foot")).to_have_text("122 lines")


async def test_an_archive_that_does_not_answer_does_not_hold_up_what_is_new(
    page: Page, context: BrowserContext, launched: Launch
) -> None:
    over = asyncio.Event()

    async def stall(route: Route) -> None:
        await over.wait()

    await page.route("**/export?*", stall)
    try:
        server, run = await away_while_events_are_trimmed(page, context, launched)
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


async def test_a_run_of_another_machine_is_shown_where_it_was_sent(
    page: Page, launched: Launch, repository: Repository
) -> None:
    first = launched(state="first")
    run_id = repository.start(first, "say(type='step', n=TURN)", maxTurns=2)
    whole = await asyncio.to_thread(event_count, first, run_id)
    await archived(first, run_id, whole)
    second = launched(state="second")
    job = json.loads(
        await asyncio.to_thread(Laptop(first.state_dir, second.url, second.token), "push", run_id[:8], "--json")
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


async def test_events_that_are_gone_for_good_are_told_of(page: Page, context: BrowserContext, launched: Launch) -> None:
    server, run = await away_while_events_are_trimmed(page, context, launched, CODY_PROJECTOR="off")
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
    page: Page, launched: Launch, repository: Repository
) -> None:
    server = launched()
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


async def test_every_line_can_be_read_with_the_keyboard(page: Page, launched: Launch, repository: Repository) -> None:
    server = launched()
    await sign_in(page, server)
    long_line = "x" * 1500
    run_id = repository.start(
        server,
        f"""
        for n in range(200): say(type="step", n=n)
        print("the first " + "{long_line}", flush=True)
        STOP.write_text("done")
        """,
    )
    await open_run(page, server, run_id, "?tab=events")
    await status(page, "completed").wait_for()
    await page.get_by_label("Search the log").fill("the first xxx")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    lines = page.get_by_role("listbox", name="Events")
    await expect(lines).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await expect(page.locator(".line-active")).to_contain_text("the first xxx")
    await page.keyboard.press("Enter")
    picked = page.get_by_role("complementary", name="The picked event")
    await expect(picked.get_by_label("The whole line")).to_have_text("the first " + long_line)
    await expect(page.get_by_role("option", selected=True)).to_have_count(1)
    await page.keyboard.press("Tab")
    await expect(picked.get_by_role("button", name="Close")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(picked).to_be_hidden()
    await expect(lines).to_be_focused()

    await page.get_by_label("Search the log").fill("")
    await lines.focus()
    await page.keyboard.press("Home")
    await expect(page.locator('.line-active[data-seq="1"]')).to_be_in_viewport()
    for key, seq in (("ArrowDown", 2), ("PageDown", 22), ("ArrowUp", 21), ("PageUp", 1), ("ArrowUp", 1)):
        await page.keyboard.press(key)
        await expect(page.locator(f'.line-active[data-seq="{seq}"]')).to_be_in_viewport()
        active = await lines.get_attribute("aria-activedescendant")
        await expect(page.locator(f"#{active}")).to_have_attribute("aria-posinset", str(seq))
    # A row that is scrolled away is not in the page: nothing says that the reader is at it.
    await lines.evaluate("list => { list.scrollTop = list.scrollHeight }")
    await expect(page.locator('.line[data-seq="1"]')).to_have_count(0)
    await expect(lines).not_to_have_attribute("aria-activedescendant", re.compile("."))
    await page.keyboard.press("ArrowDown")
    await expect(page.locator('.line-active[data-seq="2"]')).to_be_in_viewport()
    active = await lines.get_attribute("aria-activedescendant")
    await expect(page.locator(f"#{active}")).to_have_attribute("aria-posinset", "2")


FOCUSED = """() => {
  const element = document.activeElement
  const label = element.getAttribute('aria-label') ?? element.closest('label')?.textContent ?? element.textContent
  return label.trim().split('\\n')[0].slice(0, 40)
}"""


async def test_tab_goes_through_the_page_in_the_order_that_one_reads(
    page: Page, launched: Launch, repository: Repository
) -> None:
    server = launched()
    await sign_in(page, server)
    run_id = repository.start(server, TURNS_THAT_WAIT, gracePeriodSec=1)
    await open_run(page, server, run_id, "?tab=events")
    await page.locator(".line").first.wait_for()
    await page.locator("#turn-1").wait_for()
    await page.get_by_role("button", name="Pause").wait_for()
    order = []
    while len(order) < 30 and "Events list" not in order:
        await page.keyboard.press("Tab")
        said = await page.evaluate(FOCUSED)
        is_list = await page.evaluate("document.activeElement.getAttribute('role') === 'listbox'")
        order.append("Events list" if is_list else re.sub(r"\\s*\\d.*$", "", said))
    head = ["Skip to the content", "Cody, all runs", "Runs", "Health", "New run", "Pause", "Cancel …"]
    assert order[: len(head)] == head, order
    rest = order[len(head) :]
    assert [one for one in rest if one in {"Events", "Search the log", "Follow", "Events list"}] == [
        "Events",
        "Search the log",
        "Follow",
        "Events list",
    ], order
    unnamed = await page.evaluate(
        """() => [...document.querySelectorAll('a, button, input, select, [tabindex="0"]')]
          .filter((one) => one.checkVisibility())
          .filter((one) => !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length))
          .map((one) => one.outerHTML)"""
    )
    assert unnamed == []


FRAMES = """() => {
  window.frames60 = 0
  const count = () => { window.frames60++; requestAnimationFrame(count) }
  requestAnimationFrame(count)
}"""


async def test_sixty_events_a_second_leave_the_page_usable_and_still(
    page: Page, launched: Launch, repository: Repository
) -> None:
    server = launched()
    await sign_in(page, server)
    run_id = repository.start(
        server,
        """
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
    await page.evaluate(SHIFTS)
    await page.evaluate(FRAMES)
    seen = page.locator(".turn-panel .section", has_text="Files")
    await expect(seen).to_contain_text("40")
    assert await page.evaluate("window.frames60") > 20
    assert not await moved(page)
    # While they come: another tab, a filter, a search, and back.
    await page.get_by_role("tab", name="Events").click()
    await page.locator(".chips").get_by_role("button", name="tokens").click()
    await page.get_by_label("Search the log").fill('step {"n":3}')
    await expect(page.locator(".log-foot")).to_contain_text("1 of")
    await page.get_by_role("tab", name="Turn", exact=True).click()
    await expect(status(page, "running")).to_be_visible()
    # What the reader did may move things; what comes after may not.
    await page.evaluate("window.shifts.length = 0")
    repository.give("enough")
    await status(page, "completed").wait_for()
    assert not await moved(page)


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
