"""DuckDB with the store attached to it, for reading only; statements that take long are noted."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from pnl.errors import HistoryError
from pnl.history.wire import Column, Columns
from pnl.schema import MIGRATIONS

SLOW_MS = 100.0
SQLITE = "duckdb_extension_sqlite_scanner"


def extension() -> str:
    """DuckDB's reader of SQLite files, from its Python package: nothing is fetched."""
    [version] = (Path(str(files(SQLITE))) / "extensions").glob("v*")
    return str(version / "sqlite_scanner.duckdb_extension")


def quoted(text: str) -> str:
    """Text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


class Duck:
    """A connection; every value that it is given stands in a statement as an integer or a parameter."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(
            config={
                "threads": 2,
                "python_enable_replacements": False,
                "autoinstall_known_extensions": False,
                "allocator_background_threads": True,  # gives memory back to the system
            }
        )
        self._connection.execute(f"LOAD {quoted(extension())}")
        # A scan in several threads is no snapshot: each thread reads in a transaction of its own.
        self._connection.execute("SET sqlite_disable_multithreaded_scans = true")
        self.slow: list[tuple[str, float]] = []

    def attach(self, path: Path, kind: str | None) -> None:
        """Attach the store as `store`, in the place of one that was.

        Raises:
            HistoryError: It is not there, not readable, of another version, or holds the other kind of numbers.
        """
        if not path.exists():
            raise HistoryError(f"nothing is recorded in {path.parent} yet; start the dashboard, or run `pnl sync`")
        try:
            self._connection.execute("DETACH DATABASE IF EXISTS store")
            self._connection.execute(f"ATTACH {quoted(str(path))} AS store (TYPE sqlite, READ_ONLY)")
            version = int(self.sqlite("SELECT user_version FROM pragma_user_version")[0][0])
            if version != len(MIGRATIONS):
                raise HistoryError(
                    f"{path} is of another version of pnl (schema {version}, this one reads {len(MIGRATIONS)}); "
                    "start the dashboard with this version once, or install the newer one"
                )
            found = self.sqlite("SELECT value FROM meta WHERE key = 'kind'")[0][0]
        except duckdb.Error as error:
            raise HistoryError(f"{path} cannot be read: {_first_line(error)}") from None
        if kind is not None and found != kind:
            raise HistoryError(f"{path.parent} holds {found} numbers, and {kind} ones are asked for")

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB's own connection."""
        return self._connection

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement's result."""
        with self._timed(statement):
            return self._connection.execute(statement, list(values)).fetchall()

    def columns(self, statement: str) -> Columns:
        """The result's columns by name."""
        with self._timed(statement):
            return self._connection.execute(statement).fetchnumpy()

    def sqlite(self, statement: str) -> list[tuple[Any, ...]]:
        """All rows of a statement that SQLite itself runs, by its own indexes; every value comes as text."""
        return self.rows(f"SELECT * FROM {sqlite_query(statement)}")

    def insert(self, table: str, columns: Mapping[str, Sequence[int] | Sequence[str]]) -> None:
        """Fill a table by whole columns, each as one text: value by value it would take twenty times as long."""
        texts = [msgspec.json.encode(list(column)).decode() for column in columns.values()]
        kinds = ["BIGINT" if isinstance(column[0], int) else "VARCHAR" for column in columns.values()]
        given = ", ".join(f"unnest(from_json(?, '[\"{kind}\"]'))" for kind in kinds)
        self.rows(f"INSERT INTO {table} SELECT {given}", texts)

    def write_parquet(self, query: str, columns: Mapping[str, Column], path: str) -> None:
        """Write what a query makes of some columns, as `given`, to a file, whole or not at all.

        Raises:
            HistoryError: It cannot be written there.
        """
        unfinished = Path(f"{path}.part")
        try:
            self._connection.register("given", dict(columns))
            self.rows(f"COPY ({query}) TO {quoted(str(unfinished))} (FORMAT parquet, COMPRESSION zstd)")
            unfinished.replace(path)
        except (duckdb.Error, OSError) as error:
            unfinished.unlink(missing_ok=True)
            raise HistoryError(f"{path} cannot be written: {_first_line(error)}") from None
        finally:
            self._connection.unregister("given")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is read from the store inside is of one instant."""
        self._connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _timed(self, statement: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            took_ms = (time.perf_counter() - began) * 1000
            if took_ms > SLOW_MS:
                self.slow.append((" ".join(statement.split()), took_ms))


def sqlite_query(statement: str) -> str:
    """A table of what SQLite answers; every column of it is text."""
    return f"sqlite_query('store', {quoted(statement)})"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
