"""Secrets out of a Response's text as it comes, also those that are cut over two deltas. Pure but for what it holds.

Of each item the end that may be the begin of a secret is held back until what follows tells, or until the item is done.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from cody.contracts.stream_events import (
    TERMINAL_PAYLOADS,
    ItemCancelled,
    ItemDelta,
    ItemDone,
    ItemError,
    ItemStart,
    Payload,
    ScriptExecutionDone,
    ScriptExecutionError,
)
from cody.redaction import Redactor


class _Text:
    """The text of one item, in pieces."""

    def __init__(self, redactor: Redactor) -> None:
        self._stream = redactor.stream()
        # A secret need not be text: what is held back may then begin within a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, text: str) -> str:
        return self._decoder.decode(self._stream.feed(text.encode("utf-8", "replace")))

    def finish(self) -> str:
        return self._decoder.decode(self._stream.finish(), final=True)


class DeltaRedactor:
    """Cleans the text that the events of one Response add up to. Feed it each payload, in order."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._texts: dict[str, _Text] = {}

    def clean(self, payload: Payload) -> Iterator[Payload]:
        """What may be told now: the payload with the text that is known to hold no secret, held-back text before it."""
        if not self._redactor.longest:
            yield payload
            return
        match payload:
            case ItemStart(item_id=id):
                yield from self._finish(id)
                yield self._begun(payload)
            case ItemDelta(item_id=id, delta_content=text):
                told = self._text(id).feed(text)
                if told or not text:
                    yield payload.model_copy(update={"delta_content": told})
            case ItemDone(item_id=id) | ItemError(item_id=id) | ItemCancelled(item_id=id):
                yield from self._finish(id)
                yield payload
            case ScriptExecutionDone(script_id=id) | ScriptExecutionError(script_id=id):
                yield from self._finish(id)
                yield payload
            case _:
                if isinstance(payload, TERMINAL_PAYLOADS):
                    for id in list(self._texts):
                        yield from self._finish(id)
                yield payload

    def _begun(self, start: ItemStart) -> ItemStart:
        """The item's start: its text is what the deltas go on with."""
        name = "arguments" if start.item_type == "function_call" else "code" if start.code else "initial_content"
        text: str | None = getattr(start, name)
        return start if not text else start.model_copy(update={name: self._text(start.item_id).feed(text)})

    def _text(self, item_id: str) -> _Text:
        return self._texts.setdefault(item_id, _Text(self._redactor))

    def _finish(self, item_id: str) -> Iterator[Payload]:
        text = self._texts.pop(item_id, None)
        held = "" if text is None else text.finish()
        if held:
            yield ItemDelta(item_id=item_id, delta_content=held)
