"""What a shell command line has to do with tests: it starts them, or it shows files. Pure: read, never run.

Not a shell: words, quotes, operators, redirections and here-documents are understood, variables and functions are not.
Where that is too little the answer is "no"; that tests ran is then seen from their output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_COMMAND = 64 * 1024
_MAX_NESTING = 8

_WORD = r"""(?:[^\s'"\\;|&()<>]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")++"""
_TOKEN = re.compile(
    r"(?P<skip>[ \t]+|\\\n|#[^\n]*)"
    rf"|(?P<redirect>&?\d*(?:<<<|[<>]{{1,2}}[&|]?)[ \t]*(?:{_WORD})?)"
    rf"|(?P<operator>[\n;|&()]+)|(?P<word>{_WORD})|(?P<unclosed>.+)",
    re.DOTALL,
)
_PART = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^'"\\]+)""", re.DOTALL)
_ESCAPED = re.compile(r'\\([$`"\\\n])')
_HERE_DOCUMENT = re.compile(r"(?<!<)<<(?!<)-?[ \t]*(['\"]?)(\w+)\1[^\n]*\n")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_NUMBER = re.compile(r"\d+(?:\.\d+)?[smhd]?\Z")
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*\Z|py\Z")

_SHELLS = frozenset({"bash", "sh", "zsh", "dash", "ash", "ksh"})
_KEYWORDS = frozenset(
    {"if", "then", "else", "elif", "while", "until", "do", "!", "{", "time", "exec", "command", "nohup"}
)
_TEST_WORDS = frozenset({"test", "tests", "unittest", "unittests", "pytest"})
_NO_TESTS_RUN = frozenset(
    {"--version", "-V", "--help", "-h", "--collect-only", "--co", "--fixtures", "--markers", "--no-run", "--listTests"}
)

_LAUNCHERS = dict.fromkeys(("uv", "poetry", "pdm", "hatch", "rye", "pipenv", "pixi"), "run") | dict.fromkeys(
    ("env", "sudo", "timeout", "nice", "stdbuf", "xvfb-run", "uvx", "npx", "bunx"), ""
)
"""Programs that run what follows, after their subcommand if they have one."""
_NODE_MANAGERS = frozenset({"npm", "pnpm", "yarn", "bun"})
_TAKES_VALUE = {
    "env": "-u --unset -C --chdir",
    "sudo": "-u -g -D -h -p",
    "timeout": "-k --kill-after -s --signal",
    "nice": "-n",
    "stdbuf": "-i -o -e",
    "xvfb-run": "-s -n -e -f -p -w",
    "uv": "--with --with-editable --with-requirements --extra --group --only-group --no-group -p --python --directory"
    " --project --package --env-file --index --default-index",
    "uvx": "--with --from -p --python",
    "poetry": "-C --directory -P --project",
    "pdm": "-p --project",
    "hatch": "-e --env",
    "pixi": "-e --environment",
    "npx": "-p --package -w --workspace",
    "npm": "--prefix -w --workspace",
    "pnpm": "-C --dir -F --filter",
    "yarn": "--cwd workspace",
    "bun": "--cwd --filter",
    "cargo": "--manifest-path --config -C -Z --color",
    "go": "-C",
    "python": "-W -X",
}
"""Options whose value is the next word, as far as they are met before what matters."""

_SHOWS_FILES = re.compile(
    r"(?:cat|bat|head|tail|less|more|[ef]?grep|rg|ag|sed|awk|cut|sort|uniq|nl|tac|jq|diff"
    r"|git (?:log|show|diff|blame))\Z"
)
_BESIDE = re.compile(r"(?:cd|pwd|ls|echo|printf|true|set|export|sleep|test|\[|wc|tr|file|stat|find)\Z")
"""What is done beside showing files, and shows none."""


def command_starts_tests(command: str) -> bool:
    """Whether the command line runs a test runner, as far as can be read from it.

    Known: pytest, unittest, tox, nox, jest, vitest, `npm|pnpm|yarn|bun test` and scripts with test in their names,
    `cargo test`, `go test`, `node --test`, `make|just|task test`; behind `cd x &&`, variables, `bash -lc '...'`,
    `uv run`, `npx`, `timeout 60` and the like.
    """
    return any(_starts_tests(words, _MAX_NESTING) for words in _programs(command, _MAX_NESTING))


def only_shows_files(command: str) -> bool:
    """Whether the command line does nothing but show files, so that what it prints is not of its own doing."""
    shown = False
    for words in _programs(command, _MAX_NESTING):
        program, rest = _program(words[0]), words[1:]
        if program == "git":
            program = f"git {_operand(rest, program)}"
        if _SHOWS_FILES.match(program):
            shown = shown or any(not word.startswith("-") for word in rest)
        elif not _BESIDE.match(program):
            return False
    return shown


def _starts_tests(words: list[str], nesting: int) -> bool:
    program, rest = _program(words[0]), words[1:]
    if nesting == 0:
        return False
    if program in _LAUNCHERS:
        return _launches_tests(program, rest, nesting)
    if _NO_TESTS_RUN.intersection(rest[: rest.index("--")] if "--" in rest else rest):
        return False
    match program:
        case "pytest" | "py.test" | "unittest" | "tox" | "nox" | "jest" | "vitest":
            return True
        case "cargo":
            return _operand(rest, program) in {"test", "t", "nextest"}
        case "go":
            return _operand(rest, program) == "test"
        case "node":
            return "--test" in rest
        case "make" | "gmake" | "just" | "task":
            return any(word == "check" or _is_test_script(word) for word in rest)
        case "manage.py":
            return "test" in rest
        case "coverage":
            return rest[:1] == ["run"] and _is_test_module(rest[1:], nesting)
        case _ if program in _NODE_MANAGERS:
            return _is_node_test(program, rest, nesting)
        case _ if _PYTHON.match(program):
            return _is_test_module(rest, nesting)
        case _:
            return False


def _launches_tests(program: str, rest: list[str], nesting: int) -> bool:
    subcommand = _LAUNCHERS[program]
    at = 0
    while (at := _skip_options(rest, program, at)) < len(rest):
        if rest[at] in {"-m", "--module"}:
            return _is_test_module(rest[at:], nesting)
        if subcommand and rest[at] != subcommand:
            return False
        if not subcommand:
            return any(_starts_tests(words, nesting - 1) for words in _unwrapped(rest[at:], nesting - 1))
        subcommand = ""
        at += 1
    return False


def _skip_options(rest: list[str], program: str, at: int = 0) -> int:
    """Where the first word is that is no option, no option's value, no variable and no duration (or is `-m`)."""
    takes_value = _TAKES_VALUE.get(program, "").split()
    while at < len(rest) and rest[at] not in {"-m", "--module"}:
        word = rest[at]
        if word in takes_value:
            at += 2
        elif word.startswith(("-", "+")) or _ASSIGNMENT.match(word) or _NUMBER.match(word):
            at += 1
        else:
            break
    return at


def _operand(rest: list[str], program: str) -> str:
    at = _skip_options(rest, program)
    return rest[at] if at < len(rest) else ""


def _is_test_module(rest: list[str], nesting: int) -> bool:
    """Whether the arguments of Python name a test runner: `-m pytest`, `-mpytest`, `manage.py test`."""
    joined = next((word for word in rest if word.startswith("-m") and len(word) > 2), None)
    at = _skip_options(rest, "python")
    if at < len(rest):
        named = rest[at + 1 :] if rest[at] in {"-m", "--module"} else rest[at:]
        is_program = rest[at] in {"-m", "--module"} or _program(rest[at]) == "manage.py"
        return is_program and bool(named) and _starts_tests(named, nesting - 1)
    return joined is not None and _starts_tests([joined[2:]], nesting - 1)


def _is_node_test(program: str, rest: list[str], nesting: int) -> bool:
    at = _skip_options(rest, program)
    first, behind = (rest[at], rest[at + 1 :]) if at < len(rest) else ("", [])
    if first in {"exec", "dlx", "x"}:
        at = _skip_options(behind, "npx")
        return at < len(behind) and _starts_tests(behind[at:], nesting - 1)
    if first in {"run", "run-script"}:
        script = _operand(behind, program)
        return script in {"jest", "vitest"} or _is_test_script(script)
    if program == "npm":
        return first in {"test", "t", "tst"}
    return first in {"jest", "vitest"} or _is_test_script(first)


def _is_test_script(name: str) -> bool:
    """`test`, `test:unit`, `unit-tests`; not `latest`, not `tests/Makefile`."""
    return not _TEST_WORDS.isdisjoint(re.split("[-_:]", name))


def _program(word: str) -> str:
    return word.rpartition("/")[2]


def _programs(command: str, nesting: int) -> Iterator[list[str]]:
    """The words of each program that the line starts, without variables, keywords and redirections."""
    words: list[str] = []
    for token in _TOKEN.finditer(_without_here_documents(command[:MAX_COMMAND])):
        match token.lastgroup:
            case "operator":
                yield from _unwrapped(words, nesting)
                words = []
            case "word":
                words.append(_unquoted(token[0]))
            case _:
                pass
    yield from _unwrapped(words, nesting)


def _unwrapped(words: list[str], nesting: int) -> Iterator[list[str]]:
    """The program itself, or those of the script that it, a shell, is given as an argument."""
    at = 0
    while at < len(words) and (words[at] in _KEYWORDS or _ASSIGNMENT.match(words[at])):
        at += 1
    if at == len(words):
        return
    script = _shell_script(words[at:])
    if script is None:
        yield words[at:]
    elif nesting > 0:
        yield from _programs(script, nesting - 1)


def _shell_script(words: list[str]) -> str | None:
    """`X` of `bash -lc X`."""
    if _program(words[0]) not in _SHELLS:
        return None
    for at, word in enumerate(words[1:], start=1):
        if not word.startswith("-"):
            return None
        if not word.startswith("--") and "c" in word:
            return next((rest for rest in words[at + 1 :] if not rest.startswith("-")), None)
    return None


def _unquoted(word: str) -> str:
    def plain(part: re.Match[str]) -> str:
        single, double, escaped, bare = part.groups()
        if double is not None:
            return _ESCAPED.sub(r"\1", double)
        return next(text for text in (single, escaped, bare) if text is not None)

    return _PART.sub(plain, word)


def _without_here_documents(command: str) -> str:
    """The command without the text of its here-documents: a file that is written is not run."""
    kept: list[str] = []
    at = 0
    for start in _HERE_DOCUMENT.finditer(command):
        if start.start() >= at:
            kept.append(command[at : start.end()])
            at = _here_document_end(command, start.end(), start[2])
    kept.append(command[at:])
    return "".join(kept)


def _here_document_end(command: str, at: int, delimiter: str) -> int:
    while at < len(command):
        end = command.find("\n", at)
        end = len(command) if end < 0 else end
        if command[at:end].lstrip("\t") == delimiter:
            return end
        at = end + 1
    return len(command)
