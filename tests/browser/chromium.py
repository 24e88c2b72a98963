"""A Chromium to drive: that of the machine, one from apt, or playwright's own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from playwright.async_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
INSTALL_S = 300
LAUNCH_MS = 120_000


async def launch_chromium(playwright: Playwright) -> Browser:
    """A headless Chromium; an AssertionError that says how to get one when there is none."""
    path = _in_path() or _from_apt() or playwright.chromium.executable_path
    assert os.path.exists(path), (
        "the dashboard's tests need Chromium: `apt-get install chromium`, or `python -m playwright install chromium`"
    )
    return await playwright.chromium.launch(
        executable_path=path, headless=True, args=list(ARGUMENTS), timeout=LAUNCH_MS
    )


def _in_path() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def _from_apt() -> str | None:
    """Debian's, installed; None without apt, or without the right to use it."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return None
    with (Path(tempfile.gettempdir()) / "cody-chromium.lock").open("w") as lock:
        # Of all test processes that look for it one installs it: apt refuses to work for two at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (found := _in_path()) is not None:
            return found
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            subprocess.run([apt, *arguments], capture_output=True, timeout=INSTALL_S, check=False)
    return _in_path()
