"""What the worker knows of one data folder: the minutes, the records' own journal, and the snapshots one by one."""

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any, NamedTuple

from pnl.history.archive import archive
from pnl.history.buckets import DAY_MS, MINUTE_MS
from pnl.history.duck import Duck, quoted, sqlite_query
from pnl.history.minutes import BAR_COLUMNS, Minutes, columns_of
from pnl.history.versions import Version, before_the_first, read_versions, records_of
from pnl.history.wire import Counted
from pnl.journal import COMPONENTS, Step, minutes, not_known_yet
from pnl.ledger import event_of, series_of
from pnl.records import MONEY_FIELDS
from pnl.rows import to_instant, to_us, to_usd
from pnl.schema import SNAPSHOT_COLUMNS

QUICK_MS = DAY_MS
JOURNAL = (
    "at_us BIGINT, component VARCHAR, source VARCHAR, key VARCHAR, event VARCHAR, series VARCHAR, "
    "usd DECIMAL(38,12), net DECIMAL(38,12)"
)
STATE = (
    "SELECT commits, snapshots, net_micros, records, (SELECT coalesce(max(rowid), 0) FROM superseded), "
    "(SELECT coalesce(max(value), 0) FROM meta WHERE key = 'rewrites'), "
    "(SELECT count(*) FROM archived), (SELECT value FROM meta WHERE key = 'kind') FROM chain"
)
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
        self._archive: list[tuple[int, int, str]] = []
        self.minutes = Minutes(duck)
        duck.rows(f"CREATE TABLE rebuilt ({', '.join(f'{column} BIGINT' for column in BAR_COLUMNS)})")
        duck.rows(f"CREATE TABLE journal ({JOURNAL})")

    def catch_up(self, version: object = None) -> None:
        """Read what was committed since the last time.

        That is nothing while neither the version moves on nor the files change: a page asks many questions at once.
        """
        marks = version, _mark(self._path), _mark(self._path.with_name(f"{self._path.name}-wal"))
        if version is not None and marks == self._marks:
            return
        self._marks = None  # until all of it is read
        file = marks[1][0]
        if file != self._file:  # new, or a damaged one was set aside
            self._attach(file)
        try:
            self._read_new()
        except Replaced:  # the disk gave its number to another file
            self._attach(file)
            self._read_new()
        self._marks = marks

    def _attach(self, file: int) -> None:
        self.duck.attach(self._path, self._kind)
        self._file, self._state = file, None

    def _read_new(self) -> None:
        with self.duck.transaction():
            reads_all = self._follow()
        if reads_all:
            self.duck.rows("CHECKPOINT")  # packs what was read

    def _follow(self) -> bool:
        """Read what is new; whether that was everything."""
        *numbers, kind = self.duck.sqlite(STATE)[0]
        state = State._make([*map(int, numbers), kind])
        if state == self._state:
            return False
        before, self._state = self._state, None  # until all of it is read
        if before is not None and (state.commits < before.commits or state.kind != before.kind):
            raise Replaced
        anew = before is None or before.rewrites != state.rewrites
        reads_all = self.minutes.catch_up(state.snapshots, state.net_micros, anew=anew)
        if before is None or before.archived != state.archived:
            self._archive = self._read_archive()
        first_ms, self.first_ms = self.first_ms, self._first_ms() if reads_all else self.first_ms
        if before is None or before.of_records != state.of_records or first_ms != self.first_ms:
            self._early = None if first_ms != self.first_ms else self._early
            self._read_records()
        self._state = state
        return reads_all

    def _first_ms(self) -> int | None:
        first = self.duck.sqlite("SELECT min(timestamp) FROM pnl_snapshots")[0][0]
        for _, _, file in self._archive[:1]:
            [(first,)] = self.duck.rows(f"SELECT min(timestamp) FROM read_parquet({file})")
        return None if first is None else int(first)

    def _read_archive(self) -> list[tuple[int, int, str]]:
        """From when until when, in ms since the epoch, which file holds the snapshots."""
        rows = self.duck.sqlite("SELECT until_ms, file FROM archived ORDER BY month")
        untils = [int(until) for until, _ in rows]
        files = [quoted(str(self._path.parent / file)) for _, file in rows]
        return list(zip([0, *untils], untils, files, strict=False))

    @property
    def archived_until(self) -> int:
        """Before this instant, in ms since the epoch, snapshots are in files."""
        return self._archive[-1][1] if self._archive else 0

    def archive(self, *, month: str, start_ms: int, until_ms: int) -> Mapping[str, Any]:
        """Write a month of snapshots to its file; see `archive.archive`."""
        return archive(self.duck, self._path.parent, month=month, start_ms=start_ms, until_ms=until_ms)

    def _read_records(self) -> None:
        """Make the journal, and what is rebuilt of it, anew."""
        self.versions = read_versions(self.duck, self._counted)
        current = [version for version in self.versions if version.is_current]
        steps = records_of(current).steps(self.zone)
        self._fill_journal(steps)
        first = self.first_ms
        early = current if first is None else before_the_first(self.versions, first, self.zone)
        if early != self._early:
            same = steps if early == current else records_of(early).steps(self.zone)
            self._fill_rebuilt(same if first is None else [*same, *self._taken_back(same, first)], first)
            self._early = early

    def _taken_back(self, steps: Sequence[Step], first_ms: int) -> list[Step]:
        """What the first snapshot did not know yet."""
        opens = ", ".join(f"{name}_open" for name in COMPONENTS)
        rows = self.duck.sqlite(f"SELECT {opens} FROM pnl_1m WHERE minute = {first_ms // MINUTE_MS}")
        shown = {name: to_usd(int(micros)) for row in rows for name, micros in zip(COMPONENTS, row, strict=True)}
        return not_known_yet(steps, shown, to_instant(first_ms * 1000)) if shown else []

    def _fill_journal(self, steps: Sequence[Step]) -> None:
        self.duck.rows("TRUNCATE journal")
        columns: list[list[Any]] = [
            [to_us(step.at) for step in steps],
            [step.component for step in steps],
            [step.source for step in steps],
            [step.key for step in steps],
            [event_of(step.key) if step.source == "kalshi" else step.key for step in steps],
            [series_of(step.key) if step.source == "kalshi" else step.key for step in steps],
            [f"{step.usd:.{FINEST}f}" for step in steps],
            [f"{step.net_usd:.{FINEST}f}" for step in steps],
        ]
        self._fill("journal", JOURNAL, columns)

    def _fill_rebuilt(self, steps: Sequence[Step], first_ms: int | None) -> None:
        self.duck.rows("TRUNCATE rebuilt")
        last = None if first_ms is None else first_ms // MINUTE_MS - 1
        rows = [
            (minute, count, *(part for name in MONEY_FIELDS for part in bars[name]))
            for minute, count, bars in minutes(steps, last=last)
        ]
        self._rebuilt = (rows[0][0], rows[-1][0] + 1) if rows else None
        self._fill("rebuilt", ", ".join(f"{column} BIGINT" for column in BAR_COLUMNS), list(zip(*rows, strict=True)))

    def _fill(self, table: str, declared: str, columns: Sequence[Sequence[Any]]) -> None:
        if columns and columns[0]:
            names = [column.split(" ")[0] for column in declared.split(", ")]
            self.duck.insert(table, dict(zip(names, columns, strict=True)))

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
            f"SELECT timestamp AS at_ms, {name}_micros AS micros FROM read_parquet({file}) "
            f"WHERE timestamp >= {start_ms} AND timestamp < {end_ms}"
            for since_ms, until_ms, file in self._archive
            if since_ms < end_ms and start_ms < until_ms
        ]
        chosen = f"WHERE timestamp >= {recent_ms} AND timestamp < {end_ms}"
        if end_ms - recent_ms > QUICK_MS:
            recent = f"SELECT timestamp AS at_ms, {name}_micros AS micros FROM store.pnl_snapshots {chosen}"
        else:
            wanted = f"SELECT timestamp, {name}_micros FROM pnl_snapshots {chosen}"
            recent = f"SELECT timestamp::BIGINT AS at_ms, {name}_micros::BIGINT AS micros FROM {sqlite_query(wanted)}"
        return " UNION ALL ".join([*pieces, recent])

    def snapshot_before(self, end_ms: int) -> tuple[Any, ...] | None:
        """The last snapshot before an instant, as the store's row of it."""
        columns = ", ".join(SNAPSHOT_COLUMNS)
        last = f"timestamp < {end_ms} ORDER BY timestamp DESC LIMIT 1"
        kept = f"SELECT {columns} FROM pnl_snapshots WHERE timestamp >= {self.archived_until} AND {last}"
        if rows := self.duck.sqlite(kept):
            return tuple(map(_typed, SNAPSHOT_COLUMNS, rows[0]))
        for since_ms, _, file in reversed(self._archive):
            if since_ms < end_ms and (
                rows := self.duck.rows(f"SELECT {columns} FROM read_parquet({file}) WHERE {last}")
            ):
                return rows[0]
        return None


def _mark(path: Path) -> Mark:
    """What tells that a file was written or replaced; zeros of one that is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def _typed(name: str, value: str) -> int | str:
    return value if name in ("sources", "said") else int(value)
