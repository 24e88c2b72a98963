"""The work of `cody submit`: ask, print the answer as it comes, say how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from cody.cli import exits
from cody.cli.local_server import ensure_server
from cody.cli.terminal import stderr_console
from cody.cli.untrusted import one_line, safe
from cody.client import credential_for
from cody.client.pipeline import PipelineClient
from cody.contracts.responses import FunctionCall, FunctionCallOutput, Message, OutputItem, Reasoning, Response
from cody.contracts.submit import MAX_PROMPT_CHARS, SubmitRequest
from cody.contracts.tool_names import ToolName, ToolSandbox
from cody.errors import CodyError, InvalidRequest
from cody.settings import Settings


def read_prompt(given: str) -> str:
    """The prompt; `-` means stdin, of which no more is read than any model gets."""
    return sys.stdin.read(MAX_PROMPT_CHARS + 1) if given == "-" else given


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed. `folder`: absolute, where the tools work."""

    prompt: str
    provider: str
    model: str
    thread: str | None
    tools: list[ToolName]
    folder: Path | None
    sandbox: ToolSandbox | None


async def submit_prompt(settings: Settings, asked: Asked, *, json: bool) -> int:
    """The exit code says how the answer ended."""
    request = _request(asked)
    errors = stderr_console()
    url = await ensure_server(settings, errors, Path.cwd())
    async with PipelineClient(url, token=credential_for(settings, url)) as client:
        begun = await client.submit(request)
        errors.print(f"response {begun.run_id}  thread {begun.thread_id}", style="dim", soft_wrap=True)
        printer = None if json else Printer(errors)
        try:
            response = await client.answer(begun.run_id, on_change=printer)
        except asyncio.CancelledError:
            with contextlib.suppress(CodyError):  # it may have ended meanwhile
                await client.abort(begun.run_id, "interrupted at the command line")
            errors.print("\naborted", style="dim")
            return exits.RUN_CANCELLED
    if json:
        sys.stdout.write(response.model_dump_json(exclude_none=True, indent=2) + "\n")
    else:
        assert printer is not None
        printer.end(response)
    return {"complete": exits.OK, "aborted": exits.RUN_CANCELLED}.get(response.status, exits.RUN_FAILED)


def _request(asked: Asked) -> SubmitRequest:
    try:
        return SubmitRequest(
            prompt=asked.prompt,
            model=asked.model,
            provider_id=asked.provider,
            thread_id=asked.thread,
            tools=[*asked.tools],
            working_dir=None if asked.folder is None else str(asked.folder),
            sandbox=asked.sandbox,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidRequest(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


class Printer:
    """Prints what is new in a Response each time it is called: messages on stdout, everything else on stderr."""

    def __init__(self, errors: Console) -> None:
        self._errors = errors
        self._shown: dict[str, int] = {}
        self._is_terminal = sys.stdout.isatty()
        self._open_line = False

    def __call__(self, response: Response) -> None:
        for item in response.output_items:
            if item.origin != "user":
                self._show(item)

    def end(self, response: Response) -> None:
        """Say how it ended."""
        self(response)
        self._end_line()
        if response.error is not None:
            text = f"{response.status}: {one_line(response.error.code)}: {one_line(response.error.message, 2000)}"
            self._errors.print(text, style="red", soft_wrap=True)
        elif response.usage is not None:
            usage = response.usage
            reason = f", {response.finish_reason}" if response.finish_reason else ""
            self._errors.print(
                f"{response.status}{reason}: {usage.prompt_tokens} tokens in, {usage.completion_tokens} out",
                style="dim",
            )

    def _show(self, item: OutputItem) -> None:
        match item:
            case Message(id=id, content=text) if len(text) > self._shown.get(id, 0):
                new = text[self._shown.get(id, 0) :]
                if id not in self._shown:
                    self._end_line()
                self._shown[id] = len(text)
                # Into a pipe or a file the text goes as the model wrote it.
                sys.stdout.write(safe(new) if self._is_terminal else new.encode("utf-8", "replace").decode())
                sys.stdout.flush()
                self._open_line = not new.endswith("\n")
            case Reasoning(id=id, content=text) if len(text) > self._shown.get(id, 0):
                self._errors.print(safe(text[self._shown.get(id, 0) :]), style="dim", end="", soft_wrap=True)
                self._shown[id] = len(text)
            case FunctionCall(id=id, name=name) if name and id not in self._shown:
                self._shown[id] = 0
                self._end_line()
                self._errors.print(f"calls {one_line(name)}", style="dim", soft_wrap=True)
            case FunctionCallOutput(id=id, output=text, success=success) if (text or success) and id not in self._shown:
                self._shown[id] = 0
                self._end_line()
                first = one_line(text.partition("\n")[0], 200)
                self._errors.print(f"{'answered' if success else 'failed'}: {first}", style="dim", soft_wrap=True)

    def _end_line(self) -> None:
        if self._open_line:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._open_line = False
