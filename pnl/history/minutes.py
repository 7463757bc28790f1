"""The recorded minutes inside DuckDB: those of closed hours are kept in tables, the newest come with each look.

`minutes` has net P&L alone, a minute a row; `hours` has every money column, an hour a row; of the hour that is not over
every column is held here, and put into a table when it is asked for. A year of all columns by minutes would not fit
into the memory that this is worth; what is asked of the other columns by the minute is read from the store.
"""

from collections.abc import Iterable, Sequence

from pnl.history.duck import Duck
from pnl.records import MONEY_FIELDS
from pnl.schema import BAR_COLUMNS, BAR_PARTS

HOUR = 60
NET = "net_pnl"
QUICK_MINUTES = 3 * 24 * HOUR
COUNT, NET_SUM = BAR_COLUMNS.index("snapshots"), BAR_COLUMNS.index(f"{NET}_sum")
BAR = "||','||".join(f"pnl_1m.{column}" for column in BAR_COLUMNS)
"""All of a minute as one text, which neither store takes longer for than for nothing at all."""
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
    """Follows `pnl_1m`: takes in what is new there, or reads all of it anew."""

    def __init__(self, duck: Duck) -> None:
        self._duck = duck
        self.newest = -1
        self._closed_until = 0
        self._closed = (0, 0)
        self._recent: dict[int, tuple[int, ...]] = {}
        self._made: dict[str, int] = {}  # of which looks the tables are that hold the hour that is not over
        self._looks = 0
        for table, columns in (("minutes", columns_of(NET)), ("hours", BAR_COLUMNS)):
            duck.rows(f"CREATE TABLE {table} ({', '.join(f'{column} BIGINT' for column in columns)})")

    @property
    def news(self) -> str:
        """Which of the store's minutes may be other ones than at the last look, in SQL."""
        return f"minute >= {self.newest}" if self.newest >= 0 else "minute < 0"

    def take_in(self, bars: Iterable[str], snapshots: int, net_micros: int) -> bool:
        """Take in what was written since the last time.

        Args:
            bars: What is new, as `BAR`.
            snapshots: How many there are.
            net_micros: Their sum.

        Returns:
            Whether all that is recorded is known now; if not, an older minute was written anew: `read_all`.
        """
        self._hold(bars)
        if self.newest < 0:
            return False
        if self.newest // HOUR * HOUR > self._closed_until:
            self._close_hours(self._recent_table("all", BAR_COLUMNS))
        count, net = self._closed
        count += sum(bar[COUNT] for bar in self._recent.values())
        net += sum(bar[NET_SUM] for bar in self._recent.values())
        return (count, net) == (snapshots, net_micros)

    def read_all(self) -> None:
        """Read every minute."""
        for table in ("minutes", "hours"):
            self._duck.rows(f"TRUNCATE {table}")
        self.newest, self._closed_until, self._closed = -1, 0, (0, 0)
        self._recent.clear()
        newest = self._duck.stored("SELECT max(minute) FROM pnl_1m")[0][0]
        if newest is not None:
            open_hour = int(newest) // HOUR * HOUR
            self._hold(bar for (bar,) in self._duck.stored(f"SELECT {BAR} FROM pnl_1m WHERE minute >= {open_hour}"))
            self._close_hours("store.pnl_1m")

    def _hold(self, bars: Iterable[str]) -> None:
        for text in bars:
            bar = tuple(map(int, text.split(",")))
            self._recent[bar[0]] = bar
        self.newest = max(self._recent, default=self.newest)
        self._looks += 1

    def _close_hours(self, source: str) -> None:
        """Move the minutes of hours that are over to where closed ones are."""
        until = self.newest // HOUR * HOUR
        rows = f"FROM {source} WHERE minute >= {self._closed_until} AND minute < {until}"
        self._duck.rows(f"INSERT INTO minutes SELECT {', '.join(columns_of(NET))} {rows}")
        self._duck.rows(f"INSERT INTO hours SELECT {_hourly(MONEY_FIELDS)} {rows} GROUP BY 1")
        self._recent = {minute: bar for minute, bar in self._recent.items() if minute >= until}
        self._closed_until = until
        sums = f"SELECT coalesce(sum(snapshots), 0), coalesce(sum({NET}_sum), 0) FROM hours"
        [self._closed] = self._duck.rows(sums)

    def between(self, name: str, start: int, end: int, *, by_hours: bool) -> str:
        """A query for the bars of one money column, in minutes, or in hours where that is fine enough.

        Args:
            name: The money column.
            start: The first minute since the epoch.
            end: The minute behind the last one.
            by_hours: Whole hours may come as one row.
        """
        closed = min(end, self._closed_until)
        pieces = []
        if end > self._closed_until:
            recent = self._recent_table(name, columns_of(name))
            pieces += [_piece(recent, name, max(start, self._closed_until), end)]
        first_hour, last_hour = -(-start // HOUR) * HOUR, closed // HOUR * HOUR
        if by_hours and first_hour < last_hour:
            pieces += [_piece("hours", name, first_hour, last_hour)]
            pieces += [self._minutely(name, start, first_hour), self._minutely(name, last_hour, closed)]
        else:
            pieces += [self._minutely(name, start, closed)]
        return " UNION ALL ".join(piece for piece in pieces if piece)

    def _recent_table(self, name: str, columns: Sequence[str]) -> str:
        """The table of some columns of the hour that is not over, made anew if there was a look since."""
        if self._made.get(name) != self._looks:
            places = [BAR_COLUMNS.index(column) for column in columns]
            given = [[bar[place] for place in places] for bar in self._recent.values()]
            parts = ", ".join(f"bar[{place}] AS {column}" for place, column in enumerate(columns, start=1))
            bars = f"SELECT {parts} FROM (SELECT unnest(?::BIGINT[][]) AS bar)"
            self._duck.rows(f"CREATE OR REPLACE TEMP TABLE recent_{name} AS {bars}", [str(given)])
            self._made[name] = self._looks
        return f"recent_{name}"

    def _minutely(self, name: str, start: int, end: int) -> str:
        if name == NET:
            return _piece("minutes", name, start, end)
        if end - start > QUICK_MINUTES:
            return _piece("store.pnl_1m", name, start, end)
        if end <= start:
            return ""
        return self._stored(columns_of(name), f"minute >= {start} AND minute < {end}")

    def _stored(self, columns: Sequence[str], condition: str) -> str:
        """A query for some of the store's minutes, which it finds by its own key."""
        wanted = f"SELECT {', '.join(columns)} FROM pnl_1m WHERE {condition}"
        return f"SELECT CAST(COLUMNS(*) AS BIGINT) FROM {self._duck.stored_query(wanted)}"


def _piece(table: str, name: str, start: int, end: int) -> str:
    if end <= start:
        return ""
    return f"SELECT {', '.join(columns_of(name))} FROM {table} WHERE minute >= {start} AND minute < {end}"
