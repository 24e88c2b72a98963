"""The API's own description: OpenAPI 3.1, made from the route table and the contracts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from cody import __version__
from cody.contracts.run import ErrorAnswer
from cody.contracts.schema import standard
from server.operations import DOCUMENT, JSON, PATH_PARAMETERS, Answer, Operation, Parameter
from server.query import Query
from server.routes import Endpoint

REF = "#/components/schemas/{model}"

Mode = Literal["validation", "serialization"]
Models = Mapping[tuple[Any, Mode], dict[str, Any]]
"""The schema of each contract, by its class."""

_IN_BRACES = re.compile(r"\{(\w+)(?::\w+)?\}")
LINKED = {"runId": "$response.body#/runId", "name": "$response.body#/name"}
"""Where an answer has what a linked operation's path needs."""

OF_TYPE: Mapping[str, dict[str, Any]] = {
    JSON: {"type": "object"},
    "text/event-stream": {
        "description": "One event.",
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
        "required": ["data"],
    },
}

DESCRIPTION = """\
Every call but /healthz and /enter needs a token (`Authorization: Bearer ...`), or the session cookie of a browser that
came in by a one-time link. Each operation names the scope that it needs: read, control (includes read) or admin (all).
Changes are `application/json` only. Every refusal has the shape of ErrorAnswer.
"""


def described(endpoints: Iterable[Endpoint]) -> list[tuple[Endpoint, Operation]]:
    """The endpoints that are part of the API, each with what is said of it; pages and their files are not."""
    return [(one, one.operation) for one in endpoints if one.operation is not None]


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The whole document, as JSON values."""
    table = described(endpoints)
    models, schemas = _models(operation for _, operation in table)
    by_id = {operation.id: endpoint for endpoint, operation in table}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint, operation in table:
        methods = paths.setdefault(wire_path(endpoint.path), {})
        methods[endpoint.method.lower()] = _operation(endpoint, operation, models, by_id)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cody", "version": __version__, "description": DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"token": []}],
    }


def text_of(endpoints: Iterable[Endpoint]) -> str:
    """The document as it is committed."""
    return json.dumps(document(endpoints), indent=2, ensure_ascii=False) + "\n"


def wire_path(path: str) -> str:
    """A route's pattern as OpenAPI writes it: `/api/runs/{runId}`."""
    return _IN_BRACES.sub(lambda found: "{" + to_camel(found[1]) + "}", path)


def _models(operations: Iterable[Operation]) -> tuple[Models, dict[str, Any]]:
    """The schema of each contract as it is sent or read, and all definitions that those refer to."""
    # Readers of an error may not count on `details`: as it is read, not as it is written.
    wanted: dict[tuple[type[BaseModel], Mode], None] = {(ErrorAnswer, "validation"): None}
    for operation in operations:
        if operation.body is not None:
            wanted[operation.body, "validation"] = None
        for answer in operation.answers.values():
            if answer.model is not None:
                wanted[answer.model, "serialization"] = None
    models, definitions = models_json_schema(list(wanted), by_alias=True, ref_template=REF)
    return models, {name: standard(schema) for name, schema in sorted(definitions["$defs"].items())}


def _operation(
    endpoint: Endpoint, operation: Operation, models: Models, by_id: Mapping[str, Endpoint]
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": list(_parameters(endpoint, operation)),
    }
    if endpoint.scope is None:
        made["security"] = []
    else:
        made["description"] = f"Needs scope {endpoint.scope}."
        made["x-cody-scope"] = endpoint.scope
    if operation.body is not None:
        content = {JSON: {"schema": models[operation.body, "validation"]}}
        made["requestBody"] = {"content": content, "required": not operation.body_optional}
    answers = {str(status): _answer(answer, models, by_id) for status, answer in operation.answers.items()}
    answers |= {str(status): _refusal(status, models) for status in _refusals(endpoint, operation)}
    made["responses"] = dict(sorted(answers.items()))
    return made


def _parameters(endpoint: Endpoint, operation: Operation) -> Iterator[dict[str, Any]]:
    for name in _IN_BRACES.findall(endpoint.path):
        yield {"name": to_camel(name), "in": "path", "required": True, "schema": dict(PATH_PARAMETERS[name])}
    for place, parameters in (("query", operation.query), ("header", operation.headers)):
        for one in parameters:
            yield _parameter(one, place)


def _parameter(one: Parameter, place: str) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": place,
        "required": one.required,
        "description": one.description,
        "schema": dict(one.schema),
    }


def _answer(answer: Answer, models: Models, by_id: Mapping[str, Endpoint]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.description}
    if answer.model is not None:
        made["content"] = {JSON: {"schema": models[answer.model, "serialization"]}}
    elif answer.media_type is not None:
        types = (answer.media_type, *answer.or_types)
        made["content"] = {one: {"schema": OF_TYPE.get(one, {"type": "string"})} for one in types}
    if answer.headers:
        made["headers"] = {
            name: {"description": said, "required": True, "schema": {"type": "string"}}
            for name, said in answer.headers.items()
        }
    if answer.links:
        made["links"] = {name: _link(name, by_id[name]) for name in answer.links}
    return made


def _link(operation_id: str, endpoint: Endpoint) -> dict[str, Any]:
    names = [to_camel(name) for name in _IN_BRACES.findall(endpoint.path)]
    return {"operationId": operation_id, "parameters": {name: LINKED[name] for name in names}}


def _refusals(endpoint: Endpoint, operation: Operation) -> list[int]:
    """400 and 403 from anyone, since query and Host are always checked; the rest where it can happen."""
    found = {400, 403, *operation.errors}
    if endpoint.scope is not None:
        found |= {401, 429, 503}
    if operation.body is not None:
        found |= {408, 413, 415}
    return sorted(found)


def _refusal(status: int, models: Models) -> dict[str, Any]:
    made: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {JSON: {"schema": models[ErrorAnswer, "validation"]}},
    }
    if status == 401:
        made["content"]["text/html"] = {"schema": {"type": "string"}}
    return made


class DocumentEndpoint:
    """Serves the document of a table that it is itself part of."""

    def __init__(self, table: Callable[[], Iterable[Endpoint]]) -> None:
        self._table = table

    @cached_property
    def _text(self) -> str:
        return text_of(self._table())

    def table(self) -> list[Endpoint]:
        return [Endpoint("GET", "/openapi.json", self.document, operation=DOCUMENT)]

    async def document(self, request: Request, query: Query) -> Response:
        return Response(self._text, media_type=JSON)
