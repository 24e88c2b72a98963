"""The page of a run with the keyboard alone."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect

from tests.browser.conftest import ON_ONE_LOOP
from tests.browser.pages import open_run, sign_in, status
from tests.browser.workspaces import TURNS_THAT_WAIT, Repository
from tests.server.cody_server import CodyServer

pytestmark = ON_ONE_LOOP

FOCUSED = """() => {
  const element = document.activeElement
  const label = element.getAttribute('aria-label') ?? element.closest('label')?.textContent ?? element.textContent
  return label.trim().split('\\n')[0].slice(0, 40)
}"""


async def test_every_line_can_be_read_with_the_keyboard(page: Page, server: CodyServer, repository: Repository) -> None:
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
    await expect(page.locator(".connection")).to_contain_text("Complete")
    await page.get_by_label("Search the log").fill("the first xxx")
    await expect(page.locator(".log-foot")).to_contain_text("1 of")
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


async def test_tab_goes_through_the_page_in_the_order_that_one_reads(
    page: Page, server: CodyServer, repository: Repository
) -> None:
    await sign_in(page, server)
    run_id = repository.start(server, TURNS_THAT_WAIT, gracePeriodSec=1)
    await open_run(page, server, run_id, "?tab=events")
    await page.locator(".line").first.wait_for()
    await page.locator("#turn-1").wait_for()
    await page.get_by_role("button", name="Pause").wait_for()
    order: list[str] = []
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
