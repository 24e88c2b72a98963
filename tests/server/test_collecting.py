"""A process collects nothing while it loads, and collects again once it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.server.cody_server import clean_environment

ROOT = Path(__file__).resolve().parents[2]


def said(code: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_what_is_loaded_is_left_alone_and_what_is_made_later_is_collected() -> None:
    code = """
import gc
from cody import collecting
collecting.begin()
print(gc.isenabled())
collecting.loaded()
print(gc.isenabled(), gc.get_freeze_count() > 0)
class Ring:
    def __del__(self): print("collected")
ring = Ring(); ring.ring = ring; del ring
gc.collect()
"""
    assert said(code) == ["False", "True", "True", "collected"]


def test_a_command_collects_while_it_works() -> None:
    code = """
import gc
from cody import collecting
from cody.cli.invoke import finish
collecting.begin()
async def work(): print(gc.isenabled())
try: finish(work())
except Exception as end: print(type(end).__name__)
"""
    assert said(code) == ["True", "Exit"]


def test_a_server_collects_once_it_is_ready(folder: Path) -> None:
    code = """
import gc, os, signal, sys, threading, time
from pathlib import Path
from cody import collecting
collecting.begin()
ready = Path(sys.argv[1], "server.json")
def look():
    while not ready.exists(): time.sleep(0.01)
    Path(sys.argv[2]).write_text(str(gc.isenabled()))
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=look, daemon=True).start()
from server.command import main
sys.exit(main(["--state-dir", sys.argv[1], "--port", "0"]))
"""
    # In a file of its own: on stdout the server's line, of another thread, may come in the midst of it.
    found = folder / "found"
    said(code, str(folder / "state"), str(found))
    assert found.read_text() == "True"
