"""Which pages were opened, as every process behind one address knows it."""

from hashlib import blake2b
from mmap import mmap

MARK_BYTES = 8
PLACES = 1 << 16


class Opened:
    """Pages by their id, noted by any process that was forked since this was made, and known to all of them at once.

    Each id has one place in memory that they share, so nobody waits for anybody. A later page may come to have the same
    place: who means to rely on what is noted here looks soon, and keeps it.
    """

    def __init__(self) -> None:
        self._marks = mmap(-1, PLACES * MARK_BYTES)

    def add(self, page: str) -> None:
        """Note that a page was opened."""
        place, mark = _place_and_mark(page)
        self._marks[place : place + MARK_BYTES] = mark

    def __contains__(self, page: str) -> bool:
        place, mark = _place_and_mark(page)
        return self._marks[place : place + MARK_BYTES] == mark


def _place_and_mark(page: str) -> tuple[int, bytes]:
    mark = blake2b(page.encode(), digest_size=MARK_BYTES).digest()
    return int.from_bytes(mark) % PLACES * MARK_BYTES, mark
