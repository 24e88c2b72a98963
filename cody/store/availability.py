"""The one place where a failing Redis becomes an error that callers know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError, ResponseError

from cody.errors import StoreUnavailable


def is_wrong_type(error: Exception) -> bool:
    """A key holds something that is not Cody's: Redis is well, and will say the same every time."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


@contextmanager
def store_calls(doing: str) -> Iterator[None]:
    """Turn a Redis that is away into StoreUnavailable, which says what could not be done."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(
            f"can't {doing}: Redis does not answer ({type(error).__name__}: {str(error)[:200]})"
        ) from error
