"""Every page, in both colours and on a small screen: an accessibility checker finds nothing, and all of it fits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, Route, expect

from tests.browser.conftest import ON_ONE_LOOP, Launch
from tests.browser.pages import shot, sign_in, violations
from tests.browser.workspaces import Repository
from tests.server.cody_server import CodyServer

pytestmark = ON_ONE_LOOP

PAGES = (
    ("runs", "/", ".runs-rows .status"),
    ("turn", "/runs/RUN", ".turn-panel"),
    ("events", "/runs/RUN?tab=events", ".line"),
    ("plots", "/runs/RUN?tab=plots", ".plot canvas"),
    ("logs", "/runs/RUN?tab=logs", ".log-parts"),
    ("prompt", "/runs/RUN?tab=prompt", ".prompt"),
    ("new", "/new", ".new-run"),
    ("health", "/health", ".check-ok"),
    ("nowhere", "/nowhere", ".empty"),
)
"""Name, address, and what is there when the page is."""
ACTIVE_AGENT = r"""
    for code in range(30, 38): print(f"\x1b[{code}mcolour {code}\x1b[0m \x1b[{code + 60};7mbright\x1b[0m \x1b[2mdim\x1b[0m")
    print("trouble", file=sys.stderr)
    say(type="test_run_completed", passed=3, failed=1)
    say(type="file_written", path="src/a.py")
    say(type="token_usage", inputTokens=1200, cachedInputTokens=800, outputTokens=90, totalTokens=1290)
    LOG.write_text(LOG.read_text() + "- step one\n")
    if TURN > 2: wait_for("never")
"""


@dataclass
class Look:
    """A browser's profile of one colour scheme and width; what the checker found, by the name of what was looked at."""

    scheme: Any
    width: int
    found: dict[str, list[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.scheme}-{self.width}"

    async def context(self, browser: Browser) -> BrowserContext:
        return await browser.new_context(viewport={"width": self.width, "height": 740}, color_scheme=self.scheme)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Whatever fails in the block says in which colours and width it did."""
        try:
            yield
        except Exception as error:
            error.add_note(f"in {self.name}")
            raise

    async def check(self, page: Page, name: str) -> None:
        await shot(page, f"{self.name}-{name}")
        self.found[name] = await violations(page)
        fits = await page.evaluate("document.documentElement.scrollWidth") <= self.width
        assert fits, f"{self.name}: {name} is wider than the screen"


def check_nothing_found(looks: list[Look]) -> None:
    found = {look.name: look.found for look in looks}
    assert not any(any(of_one.values()) for of_one in found.values()), json.dumps(found, indent=1)


@pytest.mark.timeout(600)
async def test_every_page_passes_the_accessibility_checker_and_fits(
    browser: Browser, server: CodyServer, repository: Repository
) -> None:
    run_id = repository.start(server, ACTIVE_AGENT, gracePeriodSec=1)
    looks = [Look(scheme, width) for width in (1280, 360) for scheme in ("light", "dark")]
    for look in looks:
        with look.named():
            async with await look.context(browser) as context:
                await visit_every_page(await context.new_page(), server, run_id, look)
    check_nothing_found(looks)


async def visit_every_page(page: Page, server: CodyServer, run_id: str, look: Look) -> None:
    await sign_in(page, server)
    await page.locator(".runs-rows .status-running").wait_for()
    for name, path, ready in PAGES:
        if name == "nowhere":
            # A wrong address is answered by the server; within the page it is one that a link made.
            await page.evaluate("history.pushState(null, '', '/nowhere'); dispatchEvent(new PopStateEvent('popstate'))")
        else:
            await page.goto(server.url + path.replace("RUN", run_id))
        await expect(page.locator("main h1")).to_be_visible()
        await expect(page.locator(ready).first).to_be_visible()
        if name == "events":
            # Of a scrolled list a row can have a place and still not be seen.
            assert await page.locator(".log-lines").evaluate("element => element.clientHeight") > 200
        await look.check(page, name)


async def test_what_a_page_says_in_between_passes_the_accessibility_checker_too(
    browser: Browser, launched: Launch, repository: Repository
) -> None:
    server = launched()
    run_id = repository.start(
        server,
        "say(type='step', n=1); wait_for('go')",
        gracePeriodSec=1,
        env={"PLACE": "here", "API_KEY": "of the run"},
    )
    looks = [Look("light", 1280), Look("dark", 360)]
    pages = []
    for look in looks:
        with look.named():
            pages.append(await (await look.context(browser)).new_page())
            await go_through_what_is_in_between(pages[-1], server, run_id, look)
    server.process.kill()
    server.wait()
    for look, page in zip(looks, pages, strict=True):
        with look.named():
            await expect(page.locator(".outage")).to_be_visible()
            await look.check(page, "lost")
            await page.context.close()
    check_nothing_found(looks)


async def go_through_what_is_in_between(page: Page, server: CodyServer, run_id: str, look: Look) -> None:
    """All of it but a server that is gone; the page is then that of the run, and live."""

    async def check(name: str, ready: Locator) -> None:
        await expect(ready).to_be_visible()
        await look.check(page, name)

    await sign_in(page, server)
    answered = asyncio.Event()

    async def late(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await page.route(f"**/api/runs/{run_id}", late)
    try:
        await page.goto(f"{server.url}/runs/{run_id}?tab=events")
        await check("loading", page.get_by_role("heading", name="Loading the run"))
    finally:
        answered.set()
        await page.unroute_all(behavior="wait")
    await page.locator(".line", has_text="step").click()
    await check("picked", page.get_by_role("complementary", name="The picked event"))
    await page.get_by_role("button", name="Cancel …").click()
    # With the pointer on it a button is as readable.
    await page.get_by_role("button", name="Cancel the run").hover()
    await check("dialog", page.get_by_role("dialog"))
    await page.get_by_role("button", name="Keep it").click()

    # A run like that one: its environment as far as the server tells it, and what it does not tell by its name.
    await page.goto(f"{server.url}/new?from={run_id}")
    await expect(page.get_by_label("Environment")).to_have_value("PLACE=here")
    await expect(page.locator(".notice-warn")).to_contain_text("Left out of the environment")
    await expect(page.locator(".notice-warn code")).to_have_text("API_KEY")
    await page.get_by_label("Turns at most").fill("many")
    await page.get_by_role("button", name="Start the run").click()
    await check("wrong", page.locator(".field-wrong").first)

    await page.goto(f"{server.url}/health")
    await expect(page.locator(".connection")).to_contain_text("Live")
    await page.context.clear_cookies()
    await check("signed-out", page.get_by_role("heading", name="You are signed out"))
    await sign_in(page, server)
    await page.goto(f"{server.url}/runs/{run_id}")
    await expect(page.locator(".run-head h1")).to_be_visible()
    await expect(page.locator(".connection")).to_contain_text("Live")


async def test_the_skip_link_leads_past_the_bar(page: Page, server: CodyServer) -> None:
    await sign_in(page, server)
    await page.goto(f"{server.url}/?sort=tokens")
    await expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await expect(page).to_have_url(f"{server.url}/?sort=tokens#main")
