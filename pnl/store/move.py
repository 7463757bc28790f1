"""A record brought from a file of SQLite into an empty database of PostgreSQL: all of it and compared, or nothing."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import SecretStr

from pnl.errors import Damaged, StoreError
from pnl.records import MONEY_FIELDS
from pnl.schema import BAR_COLUMNS, MIGRATIONS
from pnl.store.address import Address
from pnl.store.beside import FILE, kind_of, known_version, reader
from pnl.store.damage import check
from pnl.store.database import DatabasePlace
from pnl.store.file import FilePlace
from pnl.store.postgres import Connection, said_of
from pnl.store.tables import load, read_chain, write_chain

OWN_TABLES = frozenset({"meta", "chain"})  # each place has rows of its own in them
SERIES = {
    "pnl_snapshots": ("timestamp", *(f"{name}_micros" for name in MONEY_FIELDS), "trade_count", "as_of"),
    "pnl_1m": BAR_COLUMNS,
}
"""The tables that may have millions of rows, and what is summed of them; all others are compared row by row."""

type OnRows = Callable[[str, int, int], None]
"""Told of a table how many of its rows are there, and how many there will be."""


def move(folder: Path, url: SecretStr, on_rows: OnRows = lambda _table, _done, _all: None) -> dict[str, int]:
    """Copy all that is recorded in a folder into a database, in one transaction; the file stays as it is.

    Returns:
        How many rows of each table were copied and found equal.

    Raises:
        StoreHeld: A process records in one of the two.
        StoreError: There is no record, the database is not empty, or does not hold afterwards what the file holds.
    """
    address, path = Address.of(url), folder / FILE
    with _source(path) as source:
        place = DatabasePlace(address, kind_of(source, str(folder)), "FULL")
        place.hold()
        try:
            with place.open_to_write(), said_of(address, "written"):
                return _copied(source, place.connection, address, on_rows)
        finally:
            place.release()


@contextmanager
def _source(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, whole and of this version, while nobody writes it."""
    if not path.exists():
        raise StoreError(f"nothing is recorded in {path.parent}")
    file = FilePlace(path.parent, "real", "FULL")
    file.hold()
    try:
        if known_version(path) < len(MIGRATIONS):
            raise StoreError(f"{path} is of an older version of pnl; start the dashboard once without PNL_STORE_URL")
        with closing(reader(path)) as source:
            check(source)
            load(source)
            yield source
    except (sqlite3.Error, Damaged) as error:
        raise StoreError(f"{path} cannot be read: {error}; start the dashboard once without PNL_STORE_URL") from error
    finally:
        file.release()


def _copied(source: sqlite3.Connection, target: Connection, address: Address, on_rows: OnRows) -> dict[str, int]:
    tables = _tables(source)
    with target.raw.transaction():
        if read_chain(target).commits or any(_count(target, table) for table in tables):
            raise StoreError(f"{address} is not empty; set PNL_STORE_URL to a new database")
        counts = {table: _copy(source, target, table, columns, on_rows) for table, columns in tables.items()}
        for row in source.execute("SELECT key, value FROM meta WHERE key = 'rewrites'"):
            target.execute("INSERT INTO meta (key, value) VALUES (?, ?)", row)
        write_chain(target, read_chain(source))
        for table, columns in tables.items():
            if _told(source, table, columns) != _told(target, table, columns):
                raise StoreError(f"{address} does not hold what {table} of the file holds; nothing is kept there")
        check(target)
        load(target)
    return counts


def _tables(source: sqlite3.Connection) -> dict[str, list[str]]:
    """The columns of every table, but for those that are worked out."""
    query = (
        "SELECT m.name, c.name FROM sqlite_schema AS m, pragma_table_info(m.name) AS c "
        "WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid"
    )
    found: dict[str, list[str]] = {}
    for table, column in source.execute(query):
        if table not in OWN_TABLES:
            found.setdefault(table, []).append(column)
    return found


def _copy(source: sqlite3.Connection, target: Connection, table: str, columns: list[str], on_rows: OnRows) -> int:
    names, whole, done = ", ".join(columns), _count(source, table), 0
    on_rows(table, 0, whole)
    with target.raw.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN".encode()) as copy:
        for row in source.execute(f"SELECT {names} FROM {table}"):  # noqa: S608
            copy.write_row(row)
            done += 1
            if done % 1000 == 0:
                on_rows(table, done, whole)
    on_rows(table, done, whole)
    return done


def _count(connection: sqlite3.Connection | Connection, table: str) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
    return count


def _told(connection: sqlite3.Connection | Connection, table: str, columns: list[str]) -> object:
    """What tells two copies of a table apart: of a long one counts and exact sums, of the others every row."""
    if table not in SERIES:
        return Counter(connection.execute(f"SELECT {', '.join(columns)} FROM {table}"))  # noqa: S608
    # In two parts: a sum of millions of instants would be too large for an integer.
    sums = [f"sum({name} / 1000000), sum({name} % 1000000)" for name in SERIES[table]]
    return connection.execute(f"SELECT count(*), {', '.join(sums)} FROM {table}").fetchone()  # noqa: S608
