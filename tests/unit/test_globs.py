"""Globs: what they cover, and that no pattern takes exponential time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.globs import compile_globs


def covers(pattern: str, path: str) -> bool:
    return compile_globs([pattern]).match(path) is not None


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("**", ["a", "a/b", ".x/y"], []),
        ("*", ["a", ".git", "a/b"], []),
        ("*.py", ["a.py", ".py", "a.b.py"], ["a.pyc", "src/a.py", "py"]),
        ("**/*.py", ["a.py", "src/a.py", "a/b/c.py"], ["a.pyc", "a/py"]),
        (".git/**", [".git/HEAD", ".git/a/b", ".git/"], [".git", ".gitignore", "x/.git/HEAD"]),
        ("**/node_modules/**", ["node_modules/a", "x/node_modules/a/b", "a/b/node_modules/"], ["node_modules", "a/x"]),
        ("build", ["build", "build/", "build/a/b"], ["builds", "x/build", "rebuild"]),
        ("build/", ["build/", "build/a"], ["build", "builds/a"]),
        ("./src/*.ts", ["src/a.ts"], ["src/a/b.ts", "a.ts"]),
        ("/src/*.ts", ["src/a.ts"], ["a.ts"]),
        ("src/**/test_*.py", ["src/test_a.py", "src/a/b/test_.py"], ["src/a/tes_a.py", "test_a.py"]),
        ("a/**/b/**/c", ["a/b/c", "a/x/b/y/z/c", "a/b/b/c/c"], ["a/c", "a/b", "b/c"]),
        ("a/*/c", ["a/b/c"], ["a/c", "a/b/b/c", "a//c"]),
        ("a*b*c", ["abc", "axbxc", "abbcc", "aXbYcbc"], ["ab", "acb", "a/b/c"]),
        ("*a*", ["a", "xa", "ax", "xax"], ["x", ""]),
        ("?.md", ["a.md", "\u00e9.md"], [".md", "ab.md", "/.md"]),
        ("[abc].md", ["a.md"], ["d.md", "ab.md"]),
        ("[a-c]x", ["bx"], ["dx", "-x"]),
        ("[!a-c]x", ["dx"], ["ax", "/x"]),
        ("[]]x", ["]x"], ["x"]),
        ("[!]]x", ["ax"], ["]x"]),
        ("[z-a]x", [], ["ax", "zx", "[z-a]x"]),
        ("[-x]y", ["-y", "xy"], ["y"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("[a", ["[a"], ["a"]),
        ("a+(b)|c", ["a+(b)|c"], ["aab", "c"]),
        ("a\\*", ["a\\x"], ["a*"]),
        ("{a,b}.ts", ["{a,b}.ts"], ["a.ts"]),
        ("**/**/a", ["a", "x/a", "x/y/a"], ["b"]),
        ("a**b", ["ab", "axxb"], ["a/b"]),
        ("a.\n*", ["a.\nx"], ["a.x"]),
        ("", [], ["a", "", "a/b"]),
        ("./", ["a/b"], []),
    ],
)
def test_what_a_pattern_covers(pattern: str, covered: list[str], not_covered: list[str]) -> None:
    assert [path for path in covered if not covers(pattern, path)] == []
    assert [path for path in not_covered if covers(pattern, path)] == []


def test_several_patterns_cover_what_any_of_them_covers() -> None:
    globs = compile_globs(["*.md", "src/**"])
    assert [path for path in ("a.md", "src/x", "x") if globs.match(path)] == ["a.md", "src/x"]
    assert compile_globs([]).match("a") is None


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 200 + "b", "a" * 4000),
        ("**/a/" * 200 + "b", "a/" * 2000),
        ("**/*a*a*a*/" * 50 + "b", "aaaaaaa/" * 500),
        ("?*" * 100 + "b", "a" * 4000),
        ("[a-z]*" * 100 + "B", "a" * 4000),
    ],
)
def test_a_pattern_made_to_backtrack_answers(pattern: str, path: str) -> None:
    assert not covers(pattern, path)


def reference(pattern: list[str], path: list[str]) -> bool:
    """The definition, by recursion over segments: exponential, and obviously right."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(reference(pattern[1:], path[count:]) for count in range(len(path) + 1))
    if not path:
        return False
    segment = re.compile("".join({"*": "[^/]*", "?": "[^/]"}.get(sign, re.escape(sign)) for sign in pattern[0]))
    return segment.fullmatch(path[0]) is not None and reference(pattern[1:], path[1:])


SEGMENT = st.text("ab*?", min_size=1, max_size=4).filter(lambda text: "**" not in text)


@given(
    pattern=st.lists(SEGMENT | st.just("**"), min_size=1, max_size=5).filter(lambda parts: parts[-1] != "**"),
    path=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6),
)
def test_the_expression_agrees_with_the_definition(pattern: list[str], path: list[str]) -> None:
    assert covers("/".join(pattern), "/".join(path)) == reference(pattern, path)
