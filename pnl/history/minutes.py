"""The recorded minutes inside DuckDB: closed ones are kept there, the newest are read anew for every question.

`minutes` has net P&L alone, a minute a row; `hours` has every money column, an hour a row; `recent` has every column of
the hour that is not over. A year of all columns by minutes would not fit into the memory that this is worth; what is
asked of the other columns by the minute is read from the store.
"""

from collections.abc import Sequence

from pnl.history.duck import Duck, sqlite_query
from pnl.records import MONEY_FIELDS
from pnl.schema import BAR_PARTS

HOUR = 60
NET = "net_pnl"
QUICK_MINUTES = 3 * 24 * HOUR
BAR_COLUMNS = ("minute", "snapshots", *(f"{name}_{part}" for name in MONEY_FIELDS for part in BAR_PARTS))
ROLLED = {
    "open": "arg_min({0}, {1})",
    "high": "max({0})",
    "low": "min({0})",
    "close": "arg_max({0}, {1})",
}
"""How a part of many bars becomes that of one, in SQL: of a column, in the order of another. The others are summed."""


def columns_of(name: str) -> tuple[str, ...]:
    """The columns of one money column's bars."""
    return ("minute", "snapshots", *(f"{name}_{part}" for part in BAR_PARTS))


def _hourly(names: tuple[str, ...]) -> str:
    parts = [
        ROLLED.get(part, "sum({0})").format(f"{name}_{part}", "minute") + f"::BIGINT AS {name}_{part}"
        for name in names
        for part in BAR_PARTS
    ]
    return f"minute // {HOUR} * {HOUR} AS minute, sum(snapshots)::BIGINT AS snapshots, {', '.join(parts)}"


class Minutes:
    """Follows `pnl_1m`; whoever asks it does so inside a transaction, behind `catch_up`."""

    def __init__(self, duck: Duck) -> None:
        self._duck = duck
        self.newest = -1
        self.closed_until = 0
        self._closed = (0, 0)
        for table, columns in (("minutes", columns_of(NET)), ("hours", BAR_COLUMNS), ("recent", BAR_COLUMNS)):
            duck.rows(f"CREATE TABLE {table} ({', '.join(f'{column} BIGINT' for column in columns)})")

    def catch_up(self, snapshots: int, net_micros: int, *, anew: bool = False) -> bool:
        """Read what was written since the last time.

        Args:
            snapshots: How many there are.
            net_micros: Their sum; when both do not come out, an older minute was written anew, and all is read again.
            anew: Read all again in any case.

        Returns:
            Whether all was read.
        """
        if self.newest >= 0 and not anew:
            self._read_recent()
            if self._totals() == (snapshots, net_micros):
                return False
        self._read_all()
        return True

    def _read_recent(self) -> None:
        self._duck.rows(f"DELETE FROM recent WHERE minute >= {self.newest}")
        self._copy_from(self.newest)
        self._roll("recent")
        self._duck.rows(f"DELETE FROM recent WHERE minute < {self.closed_until}")

    def _read_all(self) -> None:
        """Read every minute."""
        for table in ("minutes", "hours", "recent"):
            self._duck.rows(f"TRUNCATE {table}")
        self.newest, self.closed_until, self._closed = -1, 0, (0, 0)
        newest = self._duck.sqlite("SELECT max(minute) FROM pnl_1m")[0][0]
        if newest is None:
            return
        self._copy_from(int(newest) // HOUR * HOUR)
        self.newest = int(newest)
        self._roll("store.pnl_1m")

    def _copy_from(self, minute: int) -> None:
        self._duck.rows(f"INSERT INTO recent {_stored(BAR_COLUMNS, f'minute >= {minute}')}")

    def _roll(self, table: str) -> None:
        """Move the minutes of hours that are over to where closed ones are."""
        [(newest,)] = self._duck.rows("SELECT max(minute) FROM recent")
        self.newest = max(self.newest, newest or 0)
        until = self.newest // HOUR * HOUR
        if until == self.closed_until:
            return
        rows = f"FROM {table} WHERE minute >= {self.closed_until} AND minute < {until}"
        self._duck.rows(f"INSERT INTO minutes SELECT {', '.join(columns_of(NET))} {rows}")
        self._duck.rows(f"INSERT INTO hours SELECT {_hourly(MONEY_FIELDS)} {rows} GROUP BY 1")
        self.closed_until = until
        self._closed = self._come_to("hours")

    def _totals(self) -> tuple[int, int]:
        count, net = self._come_to("recent")
        return self._closed[0] + count, self._closed[1] + net

    def _come_to(self, table: str) -> tuple[int, int]:
        sums = f"SELECT coalesce(sum(snapshots), 0), coalesce(sum({NET}_sum), 0) FROM {table}"
        [(count, net)] = self._duck.rows(sums)
        return count, net

    def between(self, name: str, start: int, end: int, *, by_hours: bool) -> str:
        """A query for the bars of one money column, in minutes, or in hours where that is fine enough.

        Args:
            name: The money column.
            start: The first minute since the epoch.
            end: The minute behind the last one.
            by_hours: Whole hours may come as one row.
        """
        closed = min(end, self.closed_until)
        pieces = [_piece("recent", name, max(start, self.closed_until), end)]
        first_hour, last_hour = -(-start // HOUR) * HOUR, closed // HOUR * HOUR
        if by_hours and first_hour < last_hour:
            pieces += [_piece("hours", name, first_hour, last_hour)]
            pieces += [self._minutely(name, start, first_hour), self._minutely(name, last_hour, closed)]
        else:
            pieces += [self._minutely(name, start, closed)]
        return " UNION ALL ".join(piece for piece in pieces if piece)

    def _minutely(self, name: str, start: int, end: int) -> str:
        if name == NET:
            return _piece("minutes", name, start, end)
        if end - start > QUICK_MINUTES:
            return _piece("store.pnl_1m", name, start, end)
        if end <= start:
            return ""
        return _stored(columns_of(name), f"minute >= {start} AND minute < {end}")


def _stored(columns: Sequence[str], condition: str) -> str:
    """A query for some of the store's minutes, which SQLite finds by its own key."""
    wanted = f"SELECT {', '.join(columns)} FROM pnl_1m WHERE {condition}"
    return f"SELECT CAST(COLUMNS(*) AS BIGINT) FROM {sqlite_query(wanted)}"


def _piece(table: str, name: str, start: int, end: int) -> str:
    if end <= start:
        return ""
    return f"SELECT {', '.join(columns_of(name))} FROM {table} WHERE minute >= {start} AND minute < {end}"
