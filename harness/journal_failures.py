"""Why a journal can't go on, and how an answer of Redis that says so is told from one that passes."""

from __future__ import annotations

from redis.exceptions import RedisError, ResponseError

from cody.errors import CodyError


class StoreLost(CodyError):
    """The run's record is gone from Redis (wiped or deleted): it can't be continued."""

    code = "store_lost"


class StoreCorrupt(CodyError):
    """The run's record in Redis is not what Cody wrote: it can't be continued."""

    code = "store_corrupt"


class JournalBroken(CodyError):
    """Events that waited for Redis can't be written any more: the spool was harmed, or Cody has a defect."""

    code = "journal_broken"


def is_corruption(error: RedisError) -> bool:
    """Repeating the call is in vain: a key has another type, or holds something that the script can't count with.

    What Redis refuses for a while (its disk or memory full, loading, read only) has codes of its own.
    """
    text = str(error)
    lasting = text.startswith(("WRONGTYPE", "user_script", "Error running script")) or "is not an integer" in text
    return isinstance(error, ResponseError) and (lasting or ("script" in text and "attempt to" in text))
