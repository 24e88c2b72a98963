"""Control messages of a run: accepted together with the status they cause, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from cody.contracts.lifecycle import REQUESTED, next_status
from cody.contracts.run import ControlAction, RunStatus
from cody.errors import Conflict, IllegalTransition, NotFound
from cody.store import keys
from cody.store.scripts import script


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """A message as the worker gets it; `id` orders them, each is applied once."""

    id: str
    action: ControlAction
    reason: str | None


def message(entry_id: bytes, fields: dict[bytes, bytes]) -> ControlMessage | None:
    """The message of a stream entry; None for an entry that is not one."""
    action = fields.get(b"action", b"").decode("utf-8", "replace")
    if action not in REQUESTED:
        return None
    reason = fields.get(b"reason", b"").decode("utf-8", "replace") or None
    return ControlMessage(entry_id.decode(), action, reason)


async def is_readable(redis: Redis, run_id: str) -> bool:
    """Whether messages of this run can be heard: its key is what it should be, or not there yet."""
    return cast("bytes", await redis.type(keys.control(run_id))) in (b"stream", b"none")


async def request(redis: Redis, run_id: str, action: ControlAction, *, reason: str | None, now: str) -> RunStatus:
    """Accept a control message and answer the status it caused.

    Raises NotFound, and Conflict where the state machine has no such move; then nothing was written. The status is compared
    in the script that writes: of two clients that ask at the same moment, the second is judged on what the first caused.
    """
    default = "manual" if action != "resume" else ""
    for _ in range(20):
        raw = cast("bytes | None", await redis.hget(keys.meta(run_id), "status"))
        if raw is None:
            raise NotFound(f"no run {run_id} (`cody runs` lists what is kept)")
        status = cast("RunStatus", raw.decode())
        try:
            target = next_status(status, REQUESTED[action])
        except IllegalTransition as error:
            raise Conflict(f"can't {action} run {run_id}: {error.message}", details={"status": status}) from None
        answer = await script("control")(
            redis,
            [keys.meta(run_id), keys.control(run_id)],
            [status, target, action, reason or default, now, keys.CTL_MAXLEN],
        )
        if answer[0] == b"ok":
            return target
    raise Conflict(f"run {run_id} changed its status too often to {action} it; try again")
