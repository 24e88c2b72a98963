"""What came from another Cody, line by line, as rows of the archive. Pure. Nothing in it is trusted to be well-formed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from pydantic import ValidationError

from cody.contracts.responses import FunctionCall, FunctionCallOutput, Message, OutputItem, Reasoning, Response
from cody.contracts.run import TERMINAL, RunSnapshot
from cody.contracts.wire import epoch_ms, utc_text
from cody.pipeline.archive import EventRow, ResponseRow
from cody.pipeline.response_state import ReducerState
from cody.pipeline.response_steps import row_of
from cody.pipeline.search_text import Document
from cody.pipeline.transfer import LINE, EventLine, RecordLine

_RUN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EVENT_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_PAYLOAD = re.compile(r'\{(?:\}|"[^\r\n]*)')
"""Events are put into server-sent events as they are: a line's end in one of these would begin a frame of its own."""
_NO_STREAM = "0-0"
"""The cursor before the first event of any stream: no event of one has led to the row."""


class Unreadable(ValueError):
    """The record is none that this Cody understands; the message says where."""


def read_line(line: bytes) -> RecordLine:
    """A line of a run's or a thread's record; raises Unreadable."""
    try:
        return LINE.validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "line"
        raise Unreadable(f"{where}: {problem['msg']}") from None


def check_run(run: RunSnapshot) -> None:
    """Raises Unreadable for a run that can be none of Cody's, and for one that has not ended."""
    if _RUN_ID.fullmatch(run.run_id) is None or not _is_time(run.created_at):
        raise Unreadable("the run's id or the time of its beginning is none of Cody's")
    if run.status not in TERMINAL:
        raise Unreadable(f"run {run.run_id} is {run.status}: only runs that have ended are taken in")


def _is_time(text: str) -> bool:
    """Whether a Cody wrote it: a day that there is, in the one way that listings can go on behind."""
    try:
        return _TIME.fullmatch(text) is not None and utc_text(epoch_ms(text)) == text
    except ValueError:
        return False


def event_row(line: EventLine) -> tuple[EventRow, Mapping[str, Any]]:
    """The row of an event, and its payload's fields; raises Unreadable."""
    checked = (_EVENT_ID, line.event_id), (_TYPE, line.type), (_PAYLOAD, line.payload)
    try:
        fields = orjson.loads(line.payload)
    except orjson.JSONDecodeError:
        fields = None
    is_written_so = _is_time(line.ts) and all(pattern.fullmatch(given) for pattern, given in checked)
    if not isinstance(fields, dict) or not is_written_so:
        raise Unreadable(f"event {line.seq} is none that a Cody wrote")
    return EventRow(line.seq, line.event_id, line.type, line.ts, line.turn, line.payload), fields


def response_row(response: Response, run_id: str | None = None) -> ResponseRow:
    """The row of a Response that has ended, in the state that a projector reads; raises Unreadable for one that goes on.

    Nobody here would ever end one that has not, and events that come under its id find it closed.
    """
    if not response.is_terminal:
        raise Unreadable(f"response {response.id} is {response.status}: only Responses that have ended are taken in")
    # Whose it is, the upload says, not the turn's name in it.
    return replace(row_of(ReducerState(response=response), _NO_STREAM), run_id=run_id)


def documents_of(response: Response) -> list[Document]:
    """What can be found of a Response."""
    found: list[Document] = []
    for item in response.output_items:
        match item:
            case Message(content=text):
                found.append(Document("message", text, response_id=response.id))
            case FunctionCall(name=name, arguments=arguments):
                found.append(Document("command", f"{name} {arguments}", response_id=response.id))
            case FunctionCallOutput(output=text):
                found.append(Document("output", text, response_id=response.id))
            case _:
                pass
    return [document for document in found if document.text.strip()]


def session_item(number: int, payload: Mapping[str, Any]) -> OutputItem | None:
    """The item of a `response_item` line of a codex session (0.163); None for what nobody looks for.

    Instructions that codex itself puts in (role developer) are left out.
    """
    given = payload.get("id")
    item_id = given if isinstance(given, str) and given else f"item-{number}"
    match payload:
        case {"type": "message", "role": "user" | "assistant" as role, "content": list(parts)}:
            return Message(id=item_id, origin="user" if role == "user" else "agent", content=_texts(parts))
        case {"type": "reasoning", "summary": list(parts)}:
            return Reasoning(id=item_id, content=_texts(parts))
        case {"type": "function_call", "name": str(name), "arguments": str(arguments), "call_id": str(call)} if call:
            return FunctionCall(id=item_id, name=name, arguments=arguments, call_id=call)
        case {"type": "custom_tool_call", "name": str(name), "input": str(text), "call_id": str(call)} if call:
            return FunctionCall(id=item_id, name=name, arguments=text, call_id=call)
        case {"type": "function_call_output" | "custom_tool_call_output", "output": output, "call_id": str(call)} if (
            call
        ):
            text = output if isinstance(output, str) else orjson.dumps(output).decode()
            return FunctionCallOutput(id=item_id, call_id=call, output=text, success=True)
        case _:
            return None


def _texts(parts: list[object]) -> str:
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))
