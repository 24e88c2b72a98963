"""The API's description: what is committed is what is served, and it says neither more nor less than the server does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from cody.contracts.schema import standard
from server import openapi_file
from server.auth import PUBLIC
from server.openapi import described, document, wire_path
from tests.security.asking import start_body
from tests.security.test_agent_environment import HOSTILE
from tests.security.test_tokens import table
from tests.server.cody_server import CodyServer

COMMITTED = Path(__file__).resolve().parents[2] / openapi_file.FILE
PAGES = re.compile(r"/(new|health|favicon\.svg|runs/\{run_id:uuid\}|assets/.*)?\Z")
"""The dashboard: people read it, no program does."""


def test_the_committed_description_is_the_one_that_is_served(client: httpx2.Client) -> None:
    """After a change of the API: `make openapi`."""
    served = client.get("/openapi.json")
    assert served.headers["content-type"] == "application/json"
    assert served.text == openapi_file.text() == COMMITTED.read_text(encoding="utf-8")


def test_every_route_of_the_api_is_described_with_its_parameters() -> None:
    endpoints = table()
    assert not [one.path for one in endpoints if one.operation is None and not PAGES.match(one.path)]
    ids = [operation.id for _, operation in described(endpoints)]
    assert len(ids) == len(set(ids))
    for endpoint, operation in described(endpoints):
        assert {one.name for one in operation.query} == endpoint.parameters, endpoint.path
        assert (endpoint.method in {"POST", "PUT", "PATCH"}) == (operation.body is not None)


def test_what_needs_no_token_and_which_scope_is_said() -> None:
    made = document(table())
    assert made["security"] == [{"token": []}]
    open_ones = {path for path, methods in made["paths"].items() for one in methods.values() if "security" in one}
    assert open_ones == PUBLIC
    for endpoint, _ in described(table()):
        said = made["paths"][wire_path(endpoint.path)][endpoint.method.lower()]
        assert said.get("x-cody-scope") == endpoint.scope


# fmt: off
WORDS = frozenset({
    "$schema", "$id", "$ref", "$defs", "$comment", "title", "description", "default", "examples", "deprecated",
    "readOnly", "writeOnly", "type", "enum", "const", "multipleOf", "minimum", "exclusiveMinimum", "maximum",
    "exclusiveMaximum", "minLength", "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems",
    "prefixItems", "items", "contains", "properties", "patternProperties", "additionalProperties", "propertyNames",
    "required", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "if", "then", "else",
    "allOf", "anyOf", "oneOf", "not", "unevaluatedItems", "unevaluatedProperties", "contentEncoding",
    "contentMediaType", "contentSchema",
})
# fmt: on
"""JSON Schema 2020-12."""
OPENAPI_WORDS = frozenset({"discriminator"})
NAMES = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})
DATA = frozenset({"const", "enum", "default", "examples", "required", "discriminator"})


def words_of(schema: Any) -> set[str]:
    """Every keyword in a schema, which would be ignored by readers that don't know it."""
    if isinstance(schema, list):
        return set[str]().union(*map(words_of, schema))
    if not isinstance(schema, dict):
        return set()
    below = [
        words_of(list(part.values()) if word in NAMES else part) for word, part in schema.items() if word not in DATA
    ]
    return set(schema).union(*below)


def test_it_is_valid_json_schema_throughout() -> None:
    made = document(table())
    for name, schema in made["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        assert words_of(schema) <= WORDS | OPENAPI_WORDS, name
    parameters = [
        one["schema"]
        for methods in made["paths"].values()
        for operation in methods.values()
        for one in operation["parameters"]
    ]
    assert words_of(parameters) <= WORDS
    refs = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(made)))
    assert refs == set(made["components"]["schemas"])


@pytest.mark.parametrize("path", sorted((COMMITTED.parent / "schemas").iterdir()), ids=lambda path: path.name)
def test_the_committed_schemas_are_valid_and_have_no_words_of_their_own(path: Path) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema_rs.meta.validate(schema)
    assert words_of(schema) <= WORDS | OPENAPI_WORDS


def test_a_bound_holds_in_the_committed_schema() -> None:
    schema = json.loads((COMMITTED.parent / "schemas" / "stream_event.json").read_text(encoding="utf-8"))
    count = jsonschema_rs.Draft202012Validator({**schema["$defs"]["Usage"], "$defs": schema["$defs"]})
    used = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    count.validate(used)
    assert not count.is_valid({**used, "total_tokens": -1})


def test_words_are_told_from_names_and_data() -> None:
    """A property may be called like a keyword, and a default may look like a schema."""
    shape = {"properties": {"ge": {"type": "integer", "ge": 0}}, "default": {"ge": 1}, "anyOf": [{"lt": 5}]}
    assert words_of(shape) == {"properties", "type", "ge", "default", "anyOf", "lt"}
    assert standard(shape) == {
        "properties": {"ge": {"type": "integer", "minimum": 0}},
        "default": {"ge": 1},
        "anyOf": [{"exclusiveMaximum": 5}],
    }


@pytest.fixture(scope="module")
def start_schema() -> Any:
    made = document(table())
    return jsonschema_rs.Draft202012Validator(
        {"$ref": "#/components/schemas/StartRunRequest", "components": made["components"]}
    )


def test_the_schema_takes_what_clients_send(start_schema: Any) -> None:
    sent = {
        "epicId": "Größe 2 (neu)",
        "config": {
            "workingDir": "/repo",
            "loopDelaySec": 5,
            "model": "org/gpt-5.5:latest",
            "completion": {"pattern": "EPIC (COMPLETE|DONE)", "scanTailLines": 50.0},
            "watch": {"include": ["src/**"], "exclude": []},
            "maxTurns": None,
            "env": {"FOO": "bar", "CODEX_HOME": "/x", "ENVIRONMENT": "x", "GIT_AUTHOR_NAME": "x"},
        },
    }
    start_schema.validate(sent)
    start_schema.validate({"epicId": "e", "config": {"workingDir": "/r", "agent": "command", "command": ["a", ""]}})


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_the_schema_refuses_what_the_server_refuses(start_schema: Any, field: str, value: Any) -> None:
    config = {"workingDir": "/repo", field: value} | ({"agent": "command"} if field == "command" else {})
    only_seen_on_disk = field == "harnessDir" and "\0" not in value
    assert start_schema.is_valid({"epicId": "e", "config": config}) == only_seen_on_disk


@pytest.mark.parametrize("command", [None, ["true"]])
def test_the_schema_has_the_command_go_with_its_agent(start_schema: Any, command: Any) -> None:
    for agent in ("codex", "command"):
        config = {"workingDir": "/r", "agent": agent, "command": command}
        assert start_schema.is_valid({"epicId": "e", "config": config}) == ((agent == "command") == bool(command))


def test_an_integer_may_have_a_fraction_of_zero(client: httpx2.Client, workspace: Path, start_schema: Any) -> None:
    body = start_body(workspace, maxTurns=2.0, completion={"scanTailLines": 50.0})
    assert '"maxTurns": 2.0' in json.dumps(body)
    start_schema.validate(body)
    assert client.post("/api/runs/preview", json=body).status_code == 200


def test_paths_are_written_as_openapi_has_them(server: CodyServer) -> None:
    assert wire_path("/api/runs/{run_id:uuid}/turns/{number}") == "/api/runs/{runId}/turns/{number}"
