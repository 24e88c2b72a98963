"""A page of another origin in the same browser: it can neither act nor read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from tests.answering_thread import answering
from tests.browser.conftest import ON_ONE_LOOP
from tests.browser.pages import sign_in
from tests.browser.workspaces import FOREVER, Repository, read
from tests.server.cody_server import CodyServer

pytestmark = ON_ONE_LOOP

TRY = """async ([url, options]) => {
  try {
    const answer = await fetch(url, { credentials: 'include', ...options })
    return answer.type === 'opaque' ? 'sent blindly' : `read ${answer.status}`
  } catch { return 'refused' }
}"""


class _Hostile(BaseHTTPRequestHandler):
    """A page of another origin; its scripts are the test's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>hostile</title>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hostile() -> Iterator[str]:
    """Another web server on this machine: to the browser it is the same site, so it sends Cody's cookies with requests."""
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


async def test_a_page_of_another_origin_can_neither_act_nor_read(
    page: Page, context: BrowserContext, server: CodyServer, repository: Repository, hostile: str
) -> None:
    await sign_in(page, server)
    run_id = repository.start(server, FOREVER, gracePeriodSec=1)
    await page.locator(".runs-rows .status-running").wait_for()
    foreign = await context.new_page()
    await foreign.goto(hostile)
    cancel = f"{server.url}/api/runs/{run_id}/cancel"
    body = json.dumps({"reason": "hostile"})
    json_type = {"Content-Type": "application/json"}
    tries: list[tuple[str, dict[str, Any]]] = [
        (cancel, {"method": "POST", "headers": json_type, "body": body}),
        (cancel, {"method": "POST", "body": body}),
        (cancel, {"method": "POST", "mode": "no-cors", "body": body}),
        (cancel, {"method": "POST", "mode": "no-cors"}),
        (f"{server.url}/api/runs", {}),
        (f"{server.url}/api/runs/{run_id}/stream", {}),
    ]
    answers = [await foreign.evaluate(TRY, list(one)) for one in tries]
    assert set(answers) <= {"refused", "sent blindly"}, answers
    framed = await foreign.evaluate(
        """(url) => new Promise((done) => {
          const frame = document.createElement('iframe')
          frame.onload = () => { try { done(String(frame.contentDocument)) } catch { done('closed') } }
          frame.src = url
          document.body.append(frame)
        })""",
        server.url,
    )
    assert framed in {"null", "closed"}
    assert read(server, f"/api/runs/{run_id}")["status"] == "running"
