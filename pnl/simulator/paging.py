"""Pages over rows that keep coming: a cursor remembers the last row given, not a number of rows."""

import base64
import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

Key = tuple[int, str]


def newest_first[T](rows: Sequence[T], key: Callable[[T], Key], limit: int, cursor: str) -> tuple[list[T], str]:
    """One page of `rows`, which are sorted by `key` ascending, from the newest on; then the next cursor or "".

    A cursor that makes no sense gives the first page, as at the venue. New rows never shift a later page.
    """
    after = decode(cursor)
    end = len(rows) if after is None else bisect_left(rows, after, key=key)
    page = list(reversed(rows[max(0, end - limit) : end]))
    return page, encode(key(page[-1])) if end > limit else ""


def oldest_first[T](rows: Sequence[T], key: Callable[[T], Key], limit: int, cursor: str) -> tuple[list[T], str]:
    """The same, from the oldest on."""
    after = decode(cursor)
    start = 0 if after is None else bisect_right(rows, after, key=key)
    page = list(rows[start : start + limit])
    return page, encode(key(page[-1])) if start + limit < len(rows) else ""


def encode(key: Key) -> str:
    """The key as an opaque word."""
    return base64.urlsafe_b64encode(f"{key[0]}|{key[1]}".encode()).decode()


def decode(cursor: str) -> Key | None:
    """The key again; None for an empty cursor or one that was never given."""
    try:
        number, text = base64.urlsafe_b64decode(cursor).decode().split("|", 1)
        return int(number), text
    except (ValueError, binascii.Error):
        return None
