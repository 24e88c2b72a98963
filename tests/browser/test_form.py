"""A run is started from the form: by a person who makes mistakes, and over a network that does."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Locator, Page, Route, expect

from harness.replay.codex_home import write_codex_home
from harness.replay.demo_workspace import create_demo_workspace
from harness.replay.server import ReplayServer
from tests.browser.conftest import ON_ONE_LOOP, Launch
from tests.browser.pages import NOTICED_MS, shot, sign_in
from tests.browser.workspaces import FOREVER, Repository, read

pytestmark = ON_ONE_LOOP


@pytest_asyncio.fixture(loop_scope="module")
async def replayed(folder: Path) -> AsyncIterator[tuple[Path, dict[str, str]]]:
    """The project of the bundled scenario, and the environment in which codex plays it."""
    create_demo_workspace(folder / "shop")
    async with ReplayServer("demo", delay_factor=0.2) as replay:
        yield folder / "shop", dict(write_codex_home(folder / "codex-home", replay.base_url))


async def colour_of(locator: Locator) -> str:
    return str(await locator.evaluate("element => getComputedStyle(element).color"))


async def test_a_run_of_codex_is_started_from_the_form_and_watched_to_its_end(
    page: Page, launched: Launch, replayed: tuple[Path, dict[str, str]]
) -> None:
    shop, env = replayed
    server = launched()
    await sign_in(page, server)
    await page.get_by_role("link", name="New run").first.click()
    await page.get_by_role("button", name="Start the run").click()
    # The server's words, at the field that they are about.
    folder = page.get_by_label("Working folder")
    await expect(folder).to_have_attribute("aria-invalid", "true")
    await expect(folder).to_be_focused()
    await folder.fill(str(shop))
    await page.get_by_label("Turns at most").fill("many")
    await page.get_by_role("button", name="Show the prompt").click()
    await expect(page.locator(".field-wrong")).to_contain_text("Turns at most")
    await page.get_by_label("Turns at most").fill("6")
    await page.get_by_label("Delay between turns").fill("0")
    await page.locator("summary", has_text="More").click()
    await page.get_by_label("Environment").fill("\n".join(f"{name}={value}" for name, value in env.items()))
    await page.get_by_role("button", name="Show the prompt").click()
    await expect(page.get_by_label("Prompt", exact=True)).to_contain_text("CURRENT STATE (READ THIS FIRST)")
    await shot(page, "new-run")
    assert read(server, "/api/runs")["runs"] == []

    await page.get_by_role("button", name="Start the run").click()
    await page.wait_for_url(re.compile("/runs/[0-9a-f-]{36}$"))
    await expect(page.locator(".entry").first).to_be_visible()
    await shot(page, "run-live")
    await page.locator(".run-title .status-completed").wait_for(timeout=NOTICED_MS)
    await expect(page.locator(".run-outcome")).to_contain_text("stop file")
    await expect(page.locator(".turn-row")).to_have_count(3)

    await page.locator("#turn-1").click()
    await expect(page.locator(".transcript")).to_contain_text("python3 -m unittest -v")
    await expect(page.locator(".outcome-bad").first).to_have_text("exit 1")
    await expect(page.locator(".turn-panel")).to_contain_text("3 passed, 2 failed")
    await shot(page, "run")
    await page.locator("#turn-2").click()
    # codex tells which files it patched; what it changed in them is Cody's to say.
    patch = page.get_by_role("region", name="Changes of pricing.py")
    await expect(patch.locator(".diff-del")).to_have_text("-    return int(total_cents * (1 - percent / 100))\n")
    await expect(patch.locator(".diff-add")).to_have_text("+    return (total_cents * (100 - percent) + 50) // 100\n")
    await expect(patch.locator(".diff-counts")).to_have_text("+1 −1")
    assert await colour_of(patch.locator(".diff-add")) != await colour_of(patch.locator(".diff-del"))
    await expect(page.locator(".diff-of")).to_have_count(3)
    await patch.scroll_into_view_if_needed()
    await shot(page, "run-diff")
    await page.locator("summary", has_text="Prompt").click()
    told = page.get_by_label("Prompt of turn 2")
    await expect(told).to_contain_text("CURRENT STATE (READ THIS FIRST)")
    await expect(told).to_contain_text("Step 1: the cause")
    await expect(told).not_to_contain_text("Step 2: the fix")
    for tab, sign in (
        ("Events", ".line"),
        ("Plots", ".plot canvas"),
        ("Logs", ".log-parts"),
        ("Next prompt", ".prompt"),
    ):
        await page.get_by_role("tab", name=tab).click()
        await expect(page.locator(sign).first).to_be_visible()
        await shot(page, f"run-{tab.split()[-1].lower()}")
    await page.get_by_role("tab", name="Logs").click()
    whole = page.get_by_role("region", name="codys-log.md")
    written = (shop / ".cody-harness" / "current-epic" / "codys-log.md").read_text(encoding="utf-8")
    await expect(whole.locator("pre")).to_have_text(written, use_inner_text=True)
    await expect(page.get_by_role("region", name="Work log")).to_contain_text("3 additions by this run")
    await page.get_by_role("region", name="Work log").get_by_role("button", name="This run's").click()
    added = page.get_by_role("region", name="What this run added to codys-log.md")
    await expect(added.locator("article")).to_have_count(3)
    await expect(added).not_to_contain_text("Nothing done yet")
    record = read(server, f"/api/runs/{page.url.split('/')[-1].split('?')[0]}")
    await expect(page.locator(".run-numbers")).to_contain_text(f"{record['currentTurn']} / 6")


async def test_a_start_whose_answer_was_lost_is_one_run_when_tried_again(
    page: Page, launched: Launch, repository: Repository
) -> None:
    server = launched()
    await sign_in(page, server)
    config = repository.config(FOREVER)
    await page.get_by_role("link", name="New run").first.click()
    await expect(page.locator(".connection")).to_contain_text("Live")
    await page.get_by_label("Working folder").fill(config["workingDir"])
    await page.get_by_label("Agent", exact=True).select_option("command")
    await page.get_by_label("Command", exact=True).fill("\n".join(config["command"]))
    await page.get_by_label("Grace before SIGKILL").fill("1")
    is_away = True

    async def lose(route: Route) -> None:
        """The request arrives; the answer doesn't, nor do those to the questions after it."""
        if is_away and route.request.method == "POST":
            await route.fetch()
        if is_away:
            await route.abort("connectionreset")
        else:
            await route.continue_()

    await page.route("**/api/**", lose)
    await page.get_by_role("button", name="Start the run").click()
    await expect(page.get_by_role("alert")).to_contain_text("The run may have started: trying again")
    await expect(page.get_by_role("alert")).not_to_contain_text("Nothing was started")
    await expect(page.locator(".connection")).to_contain_text("Reconnecting")
    is_away = False
    await expect(page.locator(".connection")).to_contain_text("Live")
    await page.get_by_role("button", name="Start the run").click()
    await page.wait_for_url(re.compile("/runs/[0-9a-f-]{36}$"))
    # The button that had the focus is gone: the reader is at the beginning of the new page, and of the one gone back to.
    await expect(page.locator("#main")).to_be_focused()
    assert [run["runId"] for run in read(server, "/api/runs")["runs"]] == [page.url.rsplit("/", 1)[1]]
    await page.get_by_role("link", name="Health").focus()
    await page.go_back()
    await expect(page.get_by_role("heading", name="New run")).to_be_visible()
    await expect(page.locator("#main")).to_be_focused()
