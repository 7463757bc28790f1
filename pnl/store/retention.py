"""Letting go of raw snapshots that are in the archive: their minutes stay, and so does the chain.

The order is what makes it safe: a month is written to its archive file and compared, then noted in `archived`, from
when on readers take it from the file; only then its rows are deleted, a few at a time. A kill between two steps leaves
a file that nobody reads yet, or rows that nobody reads any more.
"""

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime

from pnl.errors import StoreError
from pnl.store.connection import Connection
from pnl.store.minutes import MINUTE_MS, archived_until, comes_to, upsert

DAY_MS = 24 * 60 * MINUTE_MS
AT_ONCE = 5_000
ARCHIVED_COLUMNS = ("month", "until_ms", "rows", "net_micros", "file")

type Upkeep = Callable[[Connection], int]
"""Something to do inside a commit; returns how many rows it touched."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month of snapshots, in UTC: [start, until) in ms since the epoch."""

    name: str
    start_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Archived:
    """A month whose snapshots are in a file beside the store; `net_micros` is their sum."""

    month: str
    until_ms: int
    rows: int
    net_micros: int
    file: str


def month_of(ms: int) -> Month:
    """The month of an instant."""
    first = datetime.fromtimestamp(ms / 1000, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return Month(f"{first:%Y-%m}", *(round(moment.timestamp() * 1000) for moment in (first, following)))


def due(first_ms: int | None, now_ms: int, keep_days: int) -> Iterator[Month]:
    """The months that are over for so many days, oldest first.

    Args:
        first_ms: The oldest raw snapshot's instant; None if there is none.
        now_ms: The present.
        keep_days: How long raw snapshots are kept.
    """
    while first_ms is not None and (month := month_of(first_ms)).until_ms + keep_days * DAY_MS <= now_ms:
        yield month
        first_ms = month.until_ms


def oldest_raw(connection: Connection) -> int | None:
    """The oldest snapshot that is not in the archive."""
    query = "SELECT min(timestamp) FROM pnl_snapshots WHERE timestamp >= ?"
    oldest: int | None = connection.execute(query, (archived_until(connection),)).fetchone()[0]
    return oldest


def note_archived(archived: Archived) -> Upkeep:
    """From this commit on readers take the month from its file."""

    def note(connection: Connection) -> int:
        month = month_of(archived.until_ms - 1)
        if comes_to(connection, month.start_ms, month.until_ms) != (archived.rows, archived.net_micros):
            raise StoreError(f"{archived.file} does not hold what is recorded of {archived.month}; nothing is deleted")
        connection.execute(upsert("archived", ARCHIVED_COLUMNS), astuple(archived))
        return archived.rows

    return note


def has_dropped_all(connection: Connection) -> bool:
    """Whether no row is left that is in the archive."""
    query = "SELECT 1 FROM pnl_snapshots WHERE timestamp < ? LIMIT 1"
    return connection.execute(query, (archived_until(connection),)).fetchone() is None


def drop_some(connection: Connection) -> int:
    """Delete a few rows that are in the archive; returns how many there were."""
    some = "SELECT timestamp FROM pnl_snapshots WHERE timestamp < ? ORDER BY timestamp LIMIT ?"
    deleted = connection.execute(
        f"DELETE FROM pnl_snapshots WHERE timestamp IN ({some})",  # noqa: S608
        (archived_until(connection), AT_ONCE),
    )
    return deleted.rowcount
