"""Why a call of a tool was not carried out, in words for the model."""

from __future__ import annotations

from typing import ClassVar

from cody.errors import CodyError


class ToolRefused(CodyError):
    """Nothing was done, or not all of it; the message says what and why, and the model may go another way."""

    code: ClassVar[str] = "tool_refused"
