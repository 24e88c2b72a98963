"""The work of `cody sync`: the record found and written down, sent, and its job shown."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx2

from cody.cli import exits
from cody.cli.amounts import plural, size
from cody.cli.run_ids import find_run_id
from cody.cli.running import connect
from cody.cli.sync_progress import Bar
from cody.cli.sync_tables import jobs_table, pushes_table
from cody.cli.terminal import print_json, print_table, stderr_console, stdout_console
from cody.cli.untrusted import safe
from cody.client import ServerUnreachable, token_for
from cody.client.discovery import is_loopback
from cody.errors import CodyError, ConfigurationError, Forbidden, InvalidRequest
from cody.pipeline.push import ended, push
from cody.pipeline.push_journal import JournalFile, unfinished
from cody.pipeline.transfer import (
    Record,
    file_record,
    run_conversation,
    spooled,
    thread_conversation,
)
from cody.pipeline.transfer_reading import write_run, write_thread
from cody.settings import Settings
from cody.sync.adapters.http import AccessDenied, HttpAdapter
from cody.sync.contracts import JobSnapshot
from cody.sync.errors import SyncError
from cody.sync.policy import id_fault
from cody.sync.wire import JobsAnswer, job_answer

THREAD = "thread:"
KINDS = (THREAD, "run:", "codex:", "file:")


class TransferFailed(CodyError):
    """The other side refuses; the message says why."""

    code = "transfer_failed"


@dataclass(frozen=True, slots=True)
class Target:
    """The other Cody."""

    url: str
    token_file: Path | None
    patience_s: float = 5.0
    """How long a server that does not answer is waited for."""

    def token(self, settings: Settings) -> str | None:
        """Raises ConfigurationError for a file that can't be read, and for a token that would go over the network in
        the clear."""
        value = settings.sync_token or token_for(settings.model_copy(update={"token": None}), self.url)
        if self.token_file is not None:
            try:
                value = self.token_file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"the token can't be read from {self.token_file}: {error}") from None
        try:
            scheme = httpx2.URL(self.url).scheme
        except httpx2.InvalidURL:
            scheme = ""
        if scheme not in ("http", "https"):
            raise ConfigurationError(f"--to {self.url}: an address begins with https:// or http://")
        if value and scheme == "http" and not is_loopback(self.url):
            raise ConfigurationError(f"--to {self.url}: everybody on the way could read the token; use https://")
        return value


@asynccontextmanager
async def _adapter(settings: Settings, target: Target, bar: Bar | None = None) -> AsyncIterator[HttpAdapter]:
    """The other side; its refusals as errors of a command."""
    token, on_lost = target.token(settings), bar.lost if bar else None
    async with HttpAdapter(target.url, token=token, give_up_after_s=target.patience_s, on_lost=on_lost) as adapter:
        try:
            yield adapter
        except AccessDenied as error:
            raise Forbidden(f"{error.message} (--token-file or CODY_SYNC_TOKEN gives another token)") from None
        except SyncError as error:
            if error.retryable:
                raise ServerUnreachable(f"{error.message}; give the same command again to go on") from None
            raise TransferFailed(f"{error.code}: {error.message}") from None


async def push_what(
    settings: Settings, target: Target, what: str, *, conversation: str | None, wait: bool, json: bool
) -> int:
    """The work of `cody sync push`."""
    path = _file(what)
    if path is not None:
        record = file_record(path, conversation)
        file = _journal(settings, target, record.conversation_id)
        with file.locked():
            return await _push(settings, target, record, file, wait=wait, json=json)
    thread_id = what.removeprefix(THREAD) if what.startswith(THREAD) else None
    run_id = what if thread_id else await _whole_run_id(settings, what)
    chosen = conversation or (thread_conversation(thread_id) if thread_id else run_conversation(run_id))
    fault = id_fault("the conversation's id", chosen)
    if fault is not None:
        raise InvalidRequest(fault.message)

    async def write(spool: BinaryIO) -> None:
        async with await connect(settings) as client:
            token = token_for(settings, client.url)
            if thread_id:
                await write_thread(client.url, token, thread_id, spool)
            else:
                await write_run(client, token, run_id, spool)

    file = _journal(settings, target, chosen)
    with file.locked():
        record = Record(file.spool, await spooled(file.spool, write), chosen, thread_id)
        return await _push(settings, target, record, file, wait=wait, json=json)


def _file(what: str) -> Path | None:
    """The file that is meant; None for a run and a thread."""
    path = Path(what).expanduser()
    return path if os.sep in what or what.endswith(".jsonl") or path.is_file() else None


def _journal(settings: Settings, target: Target, conversation_id: str) -> JournalFile:
    return JournalFile(settings.state_dir / "sync", target.url.rstrip("/"), conversation_id)


async def _whole_run_id(settings: Settings, given: str) -> str:
    async with await connect(settings) as client:
        return await find_run_id(client, given)


async def _push(
    settings: Settings, target: Target, record: Record, file: JournalFile, *, wait: bool, json: bool
) -> int:
    with Bar(record.conversation_id) as bar:
        async with _adapter(settings, target, bar) as adapter:
            job = await push(adapter, target.url.rstrip("/"), record, file, bar)
            if wait:
                job = await ended(adapter, job, file, bar)
            else:
                file.remove()
    _print_job(job, json=json)
    return _exit_code(job)


async def show_job(settings: Settings, target: Target, job_id: str, *, json: bool) -> int:
    """The work of `cody sync status`."""
    async with _adapter(settings, target) as adapter:
        _print_job(await adapter.get(job_id), json=json)
    return exits.OK


async def cancel_job(settings: Settings, target: Target, job_id: str, *, json: bool) -> int:
    """The work of `cody sync cancel`."""
    async with _adapter(settings, target) as adapter:
        _print_job(await adapter.cancel(job_id), json=json)
    return exits.OK


async def show_jobs(settings: Settings, target: Target, what: str, *, json: bool) -> int:
    """The work of `cody sync list WHAT`."""
    jobs: Sequence[JobSnapshot] = ()
    async with _adapter(settings, target) as adapter:
        async for conversation_id in _conversations(settings, what):
            jobs = await adapter.list(conversation_id)
            if jobs:
                break
    if json:
        print_json(JobsAnswer(jobs=tuple(job_answer(job) for job in jobs)))
    elif jobs:
        print_table(stdout_console(), jobs_table(jobs))
    else:
        stderr_console().print(f"nothing of {safe(what)} was sent there", soft_wrap=True)
    return exits.OK


async def _conversations(settings: Settings, what: str) -> AsyncIterator[str]:
    """What can be meant, the likeliest first; a beginning of a run's id takes a local server to be understood."""
    path = None if what.startswith(KINDS) else _file(what)
    if path is not None:
        yield file_record(path).conversation_id
    elif ":" in what:
        yield what
    else:
        yield run_conversation(what)
        yield what  # a name that `push --as` gave
        with suppress(CodyError):
            yield run_conversation(await _whole_run_id(settings, what))


async def show_unfinished(settings: Settings, *, json: bool) -> int:
    """The work of `cody sync list` without a conversation."""
    found = unfinished(settings.state_dir / "sync")
    if json:
        print_json({"pushes": [one.model_dump() for one in found]})
    elif found:
        print_table(stdout_console(), pushes_table(found))
    else:
        stderr_console().print("no push from here waits to be gone on with")
    return exits.OK


def _print_job(job: JobSnapshot, *, json: bool) -> None:
    if json:
        print_json(job_answer(job))
        return
    console, errors = stdout_console(), stderr_console()
    done = f"{job.processed_chunk_index + 1} of {plural(job.total_chunks, 'chunk')}, {size(job.last_cursor)}"
    console.print(f"{job.job_id}  {job.state}  {safe(job.conversation_id)}  {done}", soft_wrap=True)
    if job.last_error is not None:
        errors.print(f"{job.last_error.code}: {safe(job.last_error.message)}", soft_wrap=True)


def _exit_code(job: JobSnapshot) -> int:
    return {"failed": exits.RUN_FAILED, "cancelled": exits.RUN_CANCELLED}.get(job.state, exits.OK)
