"""The sync engine stands alone: it loads with nothing of the rest of Cody, and nothing third-party but pydantic."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import cody.sync

ROOT = Path(__file__).resolve().parents[2]

LOADER = """
import importlib, importlib.abc, sys

SELF = {"cody", "cody.sync"}
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        ours = name in SELF or name.startswith("cody.sync.")
        standard = top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        if ours or top in PYDANTIC or standard:
            return None
        raise ImportError(f"{name} is behind the wall")

sys.meta_path.insert(0, Wall())
for name in sys.argv[1:]:
    importlib.import_module(name)
try:
    import cody.errors
except ImportError:
    print("loaded", len(sys.argv) - 1)
"""


def test_every_module_loads_behind_a_wall() -> None:
    names = [
        module.name
        for module in pkgutil.walk_packages(cody.sync.__path__, "cody.sync.")
        if not module.name.startswith(
            ("cody.sync.adapters.sql", "cody.sync.adapters.http")
        )  # they bring their own client
    ]
    assert {"cody.sync.engine", "cody.sync.adapters.memory", "cody.sync.conformance.case"} <= set(names)
    # -S -E: no .pth file and no variable brings anything in before the wall stands; site-packages are added by hand.
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    code = f"import sys; sys.path[:0] = {paths!r}\n{LOADER}"
    done = subprocess.run([sys.executable, "-S", "-E", "-c", code, *names], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"loaded {len(names)}\n", done.stderr


def test_no_module_takes_anything_of_the_rest_of_cody() -> None:
    """Read from the source: also of the adapters that bring their own client, and of what is imported within functions."""
    folder = ROOT / "cody" / "sync"
    taken = {
        (str(path.relative_to(folder)), name)
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        for name in imported(node)
        if name.split(".")[0] in ("cody", "harness", "server", "tests")
    }
    assert {"adapters/http.py", "adapters/sql/__init__.py", "adapters/sql/database.py"} <= {path for path, _ in taken}
    assert not {one for one in taken if one[1] != "cody.sync" and not one[1].startswith("cody.sync.")}


def imported(node: ast.AST) -> list[str]:
    """The modules that this node of a program imports; `from cody import sync` is `cody.sync`."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module="cody", names=names):
            return [f"cody.{alias.name}" for alias in names]
        case ast.ImportFrom(module=module, level=level):
            assert module is not None
            assert level == 0, "relative imports hide where they go"
            return [module]
        case _:
            return []
