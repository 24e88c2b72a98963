"""Scenario files: the bundled ones by name, all others by path. YAML or JSON in, YAML out.

A file has the fields of `Scenario`; one with a single turn may have `responses` in the place of `turns`.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Hashable
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from yaml.emitter import ScalarAnalysis

from cody.errors import ConfigurationError
from harness.replay.scenario import Scenario

MAX_FILE_BYTES = 64 * 1024 * 1024
_MAX_PROBLEMS_SHOWN = 10
_OTHER_LINE_ENDS = "\x85\u2028\u2029"
_ITEM_TYPES = frozenset({"message", "reasoning", "function_call", "custom_tool_call", "raw"})


class ScenarioError(ConfigurationError):
    """A scenario is missing or wrong; the message names the file and each field, `details` repeats them as a list."""


def bundled_scenarios() -> tuple[str, ...]:
    """The names of the scenarios that ship with Cody, sorted."""
    folder = files("harness.replay") / "scenarios"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_scenario(source: str | Path) -> Scenario:
    """The scenario of a bundled name or of a file. Raises ScenarioError.

    A string with a slash or a suffix, and every Path, is a file; any other string is a bundled name.
    """
    if isinstance(source, str) and "/" not in source and "." not in source:
        return _bundled(source)
    path = Path(source)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ScenarioError(f"scenario {path} is larger than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"scenario {path} cannot be read: {error}") from None
    return parse_scenario(text, origin=str(path))


def _bundled(name: str) -> Scenario:
    if name not in bundled_scenarios():
        raise ScenarioError(f"there is no bundled scenario {name!r}; there are: {', '.join(bundled_scenarios())}")
    text = (files("harness.replay") / "scenarios" / f"{name}.yaml").read_text(encoding="utf-8")
    return parse_scenario(text, origin=f"{name} (bundled)")


def parse_scenario(text: str, *, origin: str) -> Scenario:
    """The scenario that `text` (YAML or JSON) describes. Raises ScenarioError, which names `origin`."""
    data = _read(text, origin)
    one_turn = isinstance(data, dict) and "responses" in data
    if one_turn:
        if "turns" in data:
            raise ScenarioError(f"scenario {origin} has both `turns` and `responses`: keep one")
        data["turns"] = [{"responses": data.pop("responses")}]
    try:
        # Through JSON: strict validation of JSON knows that a list may become a tuple, that of Python objects does not.
        return Scenario.model_validate_json(orjson.dumps(data))
    except TypeError as error:
        raise ScenarioError(f"scenario {origin} holds a value that JSON does not have: {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [_problem(e, one_turn) for e in found if not _follows_from_another(e, found)]
        shown = problems[:_MAX_PROBLEMS_SHOWN]
        if len(problems) > len(shown):
            shown.append(f"... and {len(problems) - len(shown)} more")
        raise ScenarioError(
            "\n  ".join([f"scenario {origin} is not valid:", *shown]), details={"origin": origin, "problems": problems}
        ) from None


def _read(text: str, origin: str) -> Any:
    """The document in `text`. JSON as JSON: PyYAML reads an emoji escaped as two surrogates as two characters."""
    try:
        if text.lstrip().startswith("{"):
            return orjson.loads(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except orjson.JSONDecodeError as error:
        raise ScenarioError(f"scenario {origin} begins like JSON and is not: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ScenarioError(f"scenario {origin} is not YAML: {error}") from None


def _follows_from_another(error: ErrorDetails, all_errors: list[ErrorDetails]) -> bool:
    """pydantic calls a list too short as well when it found all of its entries wrong."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(
        len(e["loc"]) > len(loc) and e["loc"][: len(loc)] == loc for e in all_errors
    )


def _problem(error: ErrorDetails, one_turn: bool) -> str:
    """What is wrong where, with the place as the author of the file wrote it."""
    loc = error["loc"]
    if one_turn and loc[:2] == ("turns", 0):
        loc = loc[2:]
    return f"{_place(loc)}: {error['msg'].removeprefix('Value error, ')}"


def _place(loc: tuple[int | str, ...]) -> str:
    """A pydantic location as a person writes it: `turns[0].responses[1].items[0].name`."""
    text = ""
    previous: int | str | None = None
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not (isinstance(previous, int) and part in _ITEM_TYPES):  # the discriminator's tag is not a field
            text += f".{part}" if text else part
        previous = part
    return text or "the whole file"


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (the first one would be lost silently) and leaves dates as text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """SafeDumper that writes text of several lines as a block, so that a recorded patch can be read and edited."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def analyze_scalar(self, scalar: str) -> ScalarAnalysis:
        """PyYAML writes no block with spaces before a line's end; an empty context line of a patch is just that."""
        analysis = super().analyze_scalar(scalar)
        if not analysis.allow_block and " \n" in scalar and not scalar.endswith(" "):
            analysis.allow_block = super().analyze_scalar(re.sub(" +\n", "\n", scalar)).allow_block
        return analysis


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if any(mark in text for mark in _OTHER_LINE_ENDS):
        style = '"'  # the only style in which PyYAML escapes them; in all others it reads them back as a space or \n
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_scenario(scenario: Scenario) -> str:
    """The scenario as YAML, without fields at their default; `parse_scenario` gives an equal one back."""
    data = scenario.model_dump(mode="json", exclude_defaults=True)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def save_scenario(scenario: Scenario, path: Path) -> None:
    """Write the scenario, whole or not at all, readable by its owner only: a recording may hold what the agent saw."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(dump_scenario(scenario))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
