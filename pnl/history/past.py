"""What the worker knows of one data folder: the minutes, the records' own journal, and the snapshots one by one."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import tzinfo
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from pnl.errors import HistoryError
from pnl.history.archive import archive
from pnl.history.buckets import DAY_MS, MINUTE_MS
from pnl.history.duck import Duck, quoted
from pnl.history.minutes import BAR, Minutes, columns_of
from pnl.history.versions import Version, before_the_first, read_versions, records_of
from pnl.history.wire import Counted
from pnl.journal import COMPONENTS, Posting, Step, minutes, not_known_yet, steps_of
from pnl.ledger import event_of, series_of
from pnl.records import ZERO
from pnl.rows import to_instant, to_us, to_usd
from pnl.schema import BAR_COLUMNS, SNAPSHOT_COLUMNS

QUICK_MS = DAY_MS
SETTLED_NS = 10 * 10**9
POSTINGS = (
    "at_us BIGINT, kind VARCHAR, source VARCHAR, record VARCHAR, key VARCHAR, event VARCHAR, series VARCHAR, "
    "text VARCHAR, side VARCHAR, contracts DECIMAL(20,2), price DECIMAL(20,6), "
    + ", ".join(f"{name} DECIMAL(38,12)" for name in (*COMPONENTS, "net"))
)
STATE = (
    "chain.commits, chain.snapshots, chain.net_micros, chain.records, "
    "(SELECT coalesce(max(rowid), 0) FROM superseded) AS superseded, "
    "(SELECT coalesce(max(value), '0') FROM meta WHERE key = 'rewrites') AS rewrites, "
    "(SELECT count(*) FROM archived) AS archived, (SELECT value FROM meta WHERE key = 'kind') AS kind"
)
DATABASE = -1  # in the place of a file's number
FINEST = 12  # digits of a dollar behind the point that a sum is exact to

type Mark = tuple[int, int, int]


class State(NamedTuple):
    """What tells whether anything was written since the last question; see the store's `chain` and `meta`."""

    commits: int
    snapshots: int
    net_micros: int
    records: int
    superseded: int
    rewrites: int
    archived: int
    kind: str

    @property
    def of_records(self) -> tuple[int, int]:
        """What changes with the records."""
        return self.records, self.superseded

    def goes_on_as(self, later: "State") -> bool:
        """Whether no more than snapshots came since."""
        same = self._replace(commits=later.commits, snapshots=later.snapshots, net_micros=later.net_micros)
        return self.commits < later.commits and same == later


class Replaced(Exception):
    """The file is another one than before, in the same place."""


class Past:
    """One data folder as of the last commit; call `catch_up` before each question."""

    def __init__(self, duck: Duck, path: Path, kind: str | None, zone: tzinfo, counted: Counted) -> None:
        self.duck = duck
        self.zone = zone
        self._path = path
        self._kind = kind
        self._counted = counted
        self._file: int | None = None
        self._marks: tuple[object, Mark, Mark] | None = None
        self._state: State | None = None
        self.versions: list[Version] = []
        self._early: list[Version] | None = None
        self._rebuilt: tuple[int, int] | None = None
        self.first_ms: int | None = None
        self._archive: list[tuple[int, int, Path]] = []
        self.minutes = Minutes(duck)
        duck.rows(f"CREATE TABLE rebuilt ({', '.join(f'{column} BIGINT' for column in BAR_COLUMNS)})")
        self._unread: Sequence[Posting] | None = None
        self.listed: tuple[object, Mapping[str, Any]] | None = None  # of which postings the table `listed` is
        duck.rows(f"CREATE TABLE postings ({POSTINGS})")

    def catch_up(self, version: object = None) -> None:
        """Read what was committed since the last time.

        That is nothing while neither the version moves on nor the files change: a page asks many questions at once.
        Without a version files that were just written are looked into each time: a commit can be in them and not be
        seen yet, and one that follows at once leaves the same time on them. A database is looked into each time: a
        replica lags behind the version.
        """
        if self.duck.is_database:
            self._catch_up_with_database()
            return
        files = _mark(self._path), _mark(self._path.with_name(f"{self._path.name}-wal"))
        marks = version, *files
        if marks == self._marks:
            return
        is_sure = version is not None or all(map(_is_settled, files))
        self._marks = None  # until all of it is read
        file = files[0][0]
        if file != self._file:  # new, or a damaged one was set aside
            self._attach(file)
        try:
            self._read_new()
        except Replaced:  # the disk gave its number to another file
            self._attach(file)
            self._read_new()
        self._marks = marks if is_sure else None

    def _catch_up_with_database(self) -> None:
        """Read what is new; where the connection was lost, on a new one."""
        if self._file is not None:
            with suppress(duckdb.Error, Replaced):
                self._read_new()
                return
        self._attach(DATABASE)
        self._read_new()

    def forget(self) -> None:
        """Attach the store anew before the next question."""
        self._file = self._marks = None

    @property
    def kind(self) -> str:
        """Whether the numbers are `real` or `simulated`; empty before anything was read."""
        return "" if self._state is None else self._state.kind

    def _attach(self, file: int) -> None:
        self.duck.attach(self._path, self._kind)
        self._file, self._state = file, None

    def _look(self) -> tuple[State, list[str]]:
        """The state, and the minutes that may be new; in one statement, so that they are of one instant."""
        rows = self.duck.stored(f"SELECT {STATE}, {BAR} AS bar FROM chain LEFT JOIN pnl_1m ON {self.minutes.news}")
        *numbers, kind, _ = rows[0]
        return State._make([*map(int, numbers), kind]), [row[-1] for row in rows if row[-1] is not None]

    def _read_new(self) -> None:
        if self._state is not None and self._is_all_with_a_look(self._state):
            return
        with self.duck.transaction():
            reads_all = self._follow()
        if reads_all:
            self.duck.rows("CHECKPOINT")  # packs what was read

    def _is_all_with_a_look(self, before: State) -> bool:
        """Look, and take in the snapshots that came; whether there is no other news, as nearly always."""
        state, bars = self._look()
        if state == before:
            return True
        self._state = None  # until all of it is read
        is_all = before.goes_on_as(state) and self.minutes.take_in(bars, state.snapshots, state.net_micros)
        self._state = state if is_all else before
        return is_all

    def _follow(self) -> bool:
        """Read what is new; whether that was everything."""
        state, bars = self._look()
        before, self._state = self._state, None  # until all of it is read
        if before is not None and (state.commits < before.commits or state.kind != before.kind):
            raise Replaced
        anew = before is None or before.rewrites != state.rewrites
        reads_all = anew or not self.minutes.take_in(bars, state.snapshots, state.net_micros)
        if reads_all:
            self.minutes.read_all()
        if before is None or before.archived != state.archived:
            self._archive = self._read_archive()
        first_ms, self.first_ms = self.first_ms, self._first_ms() if reads_all else self.first_ms
        if before is None or before.of_records != state.of_records or first_ms != self.first_ms:
            self._early = None if first_ms != self.first_ms else self._early
            self._read_records()
        self._state = state
        return reads_all

    def _first_ms(self) -> int | None:
        first = self.duck.stored("SELECT min(timestamp) FROM pnl_snapshots")[0][0]
        for _, _, file in self._archive[:1]:
            if not file.exists():  # the minute it is in will do
                return int(self.duck.stored("SELECT min(minute) FROM pnl_1m")[0][0]) * MINUTE_MS + MINUTE_MS - 1
            [(first,)] = self.duck.rows(f"SELECT min(timestamp) FROM {_read(file)}")
        return None if first is None else int(first)

    def _read_archive(self) -> list[tuple[int, int, Path]]:
        """From when until when, in ms since the epoch, which file holds the snapshots."""
        rows = self.duck.stored("SELECT until_ms, file FROM archived ORDER BY month")
        untils = [int(until) for until, _ in rows]
        files = [self._path.parent / file for _, file in rows]
        return list(zip([0, *untils], untils, files, strict=False))

    @property
    def archived_until(self) -> int:
        """Before this instant, in ms since the epoch, snapshots are in files."""
        return self._archive[-1][1] if self._archive else 0

    def archive(self, *, month: str, start_ms: int, until_ms: int) -> Mapping[str, Any]:
        """Write a month of snapshots to its file; see `archive.archive`."""
        return archive(self.duck, self._path.parent, month=month, start_ms=start_ms, until_ms=until_ms)

    def _read_records(self) -> None:
        """Make the postings, and what is rebuilt of them, anew."""
        self.versions = read_versions(self.duck, self._counted)
        current = [version for version in self.versions if version.is_current]
        self._unread = postings = records_of(current).postings(self.zone)
        first = self.first_ms
        early = current if first is None else before_the_first(self.versions, first, self.zone)
        if early != self._early:
            same = steps_of(postings if early == current else records_of(early).postings(self.zone))
            self._fill_rebuilt(same if first is None else [*same, *self._taken_back(same, first)], first)
            self._early = early

    def _taken_back(self, steps: Sequence[Step], first_ms: int) -> list[Step]:
        """What the first snapshot did not know yet."""
        opens = ", ".join(f"{name}_open" for name in COMPONENTS)
        rows = self.duck.stored(f"SELECT {opens} FROM pnl_1m WHERE minute = {first_ms // MINUTE_MS}")
        shown = {name: to_usd(int(micros)) for row in rows for name, micros in zip(COMPONENTS, row, strict=True)}
        return not_known_yet(steps, shown, to_instant(first_ms * 1000)) if shown else []

    @property
    def postings(self) -> str:
        """The table of what each record did to the P&L; filled when it is asked for first, as plots do without it."""
        found, self._unread = self._unread, None
        if found is not None:
            titles = dict(self.duck.rows("SELECT ticker, title FROM store.kalshi_marks"))
            self.duck.rows("TRUNCATE postings")
            self.listed = None
            if found:
                names = [column.split(" ")[0] for column in POSTINGS.split(", ")]
                columns = zip(*(_posted(each, titles) for each in found), strict=True)
                self.duck.insert("postings", dict(zip(names, columns, strict=True)))
        return "postings"

    def _fill_rebuilt(self, steps: Sequence[Step], first_ms: int | None) -> None:
        self.duck.rows("TRUNCATE rebuilt")
        last = None if first_ms is None else first_ms // MINUTE_MS - 1
        columns = minutes(steps, last=last)
        found = columns["minute"].tolist()
        self._rebuilt = (found[0], found[-1] + 1) if found else None
        self.duck.insert_numbers("rebuilt", columns)

    def bars_between(self, name: str, start: int, end: int, *, by_hours: bool) -> str:
        """A query for one money column's minutes, rebuilt ones marked."""
        recorded = self.minutes.between(name, start, end, by_hours=by_hours)
        pieces = [f"SELECT *, FALSE AS is_rebuilt FROM ({recorded})"] if recorded else []
        if not recorded or (self._rebuilt is not None and start < self._rebuilt[1]):
            columns = ", ".join(columns_of(name))
            pieces += [f"SELECT {columns}, TRUE AS is_rebuilt FROM rebuilt WHERE minute >= {start} AND minute < {end}"]
        return " UNION ALL ".join(pieces)

    def extent(self) -> tuple[int, int] | None:
        """The first minute of all, and the one behind the last; None of an empty store."""
        recorded = None if self.first_ms is None else (self.first_ms // MINUTE_MS, self.minutes.newest + 1)
        known = [each for each in (self._rebuilt, recorded) if each is not None]
        return (min(start for start, _ in known), max(end for _, end in known)) if known else None

    def snapshots_between(self, name: str, start_ms: int, end_ms: int) -> str:
        """A query for one money column of the snapshots one by one: `at_ms` since the epoch, and `micros`."""
        recent_ms = max(start_ms, self.archived_until)
        pieces = [
            f"SELECT timestamp AS at_ms, {name}_micros AS micros FROM {_read(file)} "
            f"WHERE timestamp >= {start_ms} AND timestamp < {end_ms}"
            for since_ms, until_ms, file in self._archive
            if since_ms < end_ms and start_ms < until_ms
        ]
        chosen = f"WHERE timestamp >= {recent_ms} AND timestamp < {end_ms}"
        if end_ms - recent_ms > QUICK_MS:
            recent = f"SELECT timestamp AS at_ms, {name}_micros AS micros FROM store.pnl_snapshots {chosen}"
        else:
            found = self.duck.stored_query(f"SELECT timestamp, {name}_micros FROM pnl_snapshots {chosen}")
            recent = f"SELECT timestamp::BIGINT AS at_ms, {name}_micros::BIGINT AS micros FROM {found}"
        return " UNION ALL ".join([*pieces, recent])

    def snapshot_before(self, end_ms: int) -> tuple[Any, ...] | None:
        """The last snapshot before an instant, as the store's row of it."""
        columns = ", ".join(SNAPSHOT_COLUMNS)
        last = f"timestamp < {end_ms} ORDER BY timestamp DESC LIMIT 1"
        kept = f"SELECT {columns} FROM pnl_snapshots WHERE timestamp >= {self.archived_until} AND {last}"
        if rows := self.duck.stored(kept):
            return tuple(map(_typed, SNAPSHOT_COLUMNS, rows[0]))
        for since_ms, _, file in reversed(self._archive):
            if since_ms < end_ms and (rows := self.duck.rows(f"SELECT {columns} FROM {_read(file)} WHERE {last}")):
                return rows[0]
        return None


def _read(file: Path) -> str:
    """The table in a file of the archive."""
    if not file.exists():
        raise HistoryError(
            f"single snapshots of that time are in {file.name} on the machine that recorded them; "
            f"copy it to {file.parent}, or ask for minutes"
        )
    return f"read_parquet({quoted(str(file))})"


def _posted(posting: Posting, titles: Mapping[str, str]) -> tuple[Any, ...]:
    """A posting as a row of its table; exact figures as texts."""
    trades = posting.source == "kalshi"
    return (
        to_us(posting.at),
        posting.kind,
        posting.source,
        posting.record,
        posting.key,
        event_of(posting.key) if trades else posting.key,
        series_of(posting.key) if trades else posting.key,
        titles.get(posting.key, "") if trades else posting.text,
        posting.side,
        None if posting.count is None else f"{posting.count:.2f}",
        None if posting.price_usd is None else f"{posting.price_usd:.6f}",
        *(f"{posting.usd.get(name, ZERO):.{FINEST}f}" for name in COMPONENTS),  # type: ignore[call-overload] # of them
        f"{posting.net_usd:.{FINEST}f}",
    )


def _mark(path: Path) -> Mark:
    """What tells that a file was written or replaced; zeros of one that is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_settled(mark: Mark) -> bool:
    """Whether nobody can still be in the middle of what was written last, however slow the disk is."""
    return time.time_ns() - mark[2] >= SETTLED_NS


def _typed(name: str, value: str) -> int | str:
    return value if name in ("sources", "said") else int(value)
