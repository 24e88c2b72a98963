"""Request bodies: read up to a limit, parsed as strict JSON, validated into a contract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import orjson
from pydantic import ValidationError
from starlette.requests import Request

from cody.contracts.wire import Wire
from cody.errors import InvalidRequest
from server.problems import PayloadTooLarge, UnsupportedMediaType, invalid_fields, printable

MAX_BODY_BYTES = 1 << 20
MAX_JSON_DEPTH = 64

Model = TypeVar("Model", bound=Wire)
Container = dict[str, object] | list[object]


async def json_body(request: Request, model: type[Model]) -> Model:
    """The body as this contract. Raises InvalidRequest, PayloadTooLarge, UnsupportedMediaType."""
    check_content_type(request, absent_is_fine=False)
    return validated(model, parsed(await read_body(request)))


async def optional_json_body(request: Request, model: type[Model]) -> Model:
    """Like `json_body`, but no body at all stands for the contract's defaults."""
    check_content_type(request, absent_is_fine=True)
    raw = await read_body(request)
    if not raw:
        return model()
    check_content_type(request, absent_is_fine=False)
    return validated(model, parsed(raw))


def check_content_type(request: Request, *, absent_is_fine: bool) -> None:
    """Raises UnsupportedMediaType for everything but JSON in UTF-8, not compressed: what no HTML form can send."""
    encoding = request.headers.get("content-encoding", "identity")
    given = request.headers.getlist("content-type")
    if encoding.strip().lower() != "identity":
        raise UnsupportedMediaType(f"content-encoding {printable(encoding)!r} is not supported: send the body as it is")
    if absent_is_fine and not given:
        return
    if len(given) != 1 or not _is_json(given[0]):
        raise UnsupportedMediaType("send the body as content-type application/json (UTF-8)")


def _is_json(content_type: str) -> bool:
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = {"charset=utf-8", 'charset="utf-8"', "charset=utf8"}
    return kind == "application/json" and all(parameter in charsets for parameter in parameters if parameter)


async def read_body(request: Request) -> bytes:
    """The whole body; raises PayloadTooLarge as soon as the limit is passed, without reading on."""
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body is larger than {MAX_BODY_BYTES} bytes: shorten it", details={"maxBytes": MAX_BODY_BYTES}
    )


def parsed(raw: bytes) -> object:
    """The value of a JSON text (RFC 8259: UTF-8, no NaN); raises InvalidRequest, also when it is nested too deep."""
    try:
        raw.decode()
        value: object = orjson.loads(raw)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"body: not UTF-8 (byte {error.start})") from None
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"body: not valid JSON ({where})") from None
    if _is_deeper_than(MAX_JSON_DEPTH, value):
        raise InvalidRequest(f"body: nested deeper than {MAX_JSON_DEPTH} levels")
    return value


def _is_deeper_than(limit: int, value: object) -> bool:
    """Level by level: recursion would end in a RecursionError, which is what the limit is there to prevent."""
    level = list(_containers([value]))
    for _ in range(limit):
        if not level:
            return False
        level = [inner for container in level for inner in _containers(_members(container))]
    return bool(level)


def _containers(values: Iterable[object]) -> Iterator[Container]:
    return (value for value in values if isinstance(value, dict | list))


def _members(container: Container) -> Iterable[object]:
    return container.values() if isinstance(container, dict) else container


def validated(model: type[Model], value: object) -> Model:
    """The contract made of a JSON value; raises InvalidRequest, whose message and details name the fields."""
    try:
        return model.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid_fields([(wire_path(one["loc"]), _said(one["type"], one["msg"])) for one in found]) from None


def wire_path(location: tuple[int | str, ...]) -> str:
    """A place in the body as its sender knows it: `config.command[2]`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in location)
    return path.removeprefix(".") or "body"


def _said(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a known field"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be an object"
        case _:
            return message.removeprefix("Value error, ").replace("Input should", "should", 1)
