"""A process collects nothing while it loads, and collects again once it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def said(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
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
