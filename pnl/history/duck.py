"""DuckDB with the store attached to it, for reading only; statements that take long are noted."""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import duckdb
import msgspec

from pnl.errors import HistoryError
from pnl.history.wire import Column, Columns, Database
from pnl.schema import MIGRATIONS

SLOW_MS = 100.0
SCANNERS = {"sqlite": "duckdb_extension_sqlite_scanner", "postgres": "duckdb_extension_postgres_scanner"}
VERSION = {
    "sqlite": "SELECT user_version FROM pragma_user_version",
    "postgres": "SELECT value FROM meta WHERE key = 'schema'",
}

type Engine = Literal["sqlite", "postgres"]


def extension(engine: Engine = "sqlite") -> str:
    """DuckDB's reader of the store, from its Python package: nothing is fetched.

    Raises:
        HistoryError: The package is not there.
    """
    try:
        [version] = (Path(str(files(SCANNERS[engine]))) / "extensions").glob("v*")
    except ModuleNotFoundError:
        raise HistoryError("PNL_STORE_URL needs one more package: pip install 'pnl[postgres]'") from None
    return str(version / f"{engine}_scanner.duckdb_extension")


def quoted(text: str) -> str:
    """Text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


class Duck:
    """A connection; every value that it is given stands in a statement as an integer or a parameter.

    `database` is what it attaches in the place of a file.
    """

    def __init__(self, database: Database | None = None) -> None:
        self._database = database
        self._engine: Engine = "sqlite" if database is None else "postgres"
        self._connection = duckdb.connect(
            config={
                "threads": 1,  # a question is small: to share it out takes longer than to answer it
                "python_enable_replacements": False,
                "autoinstall_known_extensions": False,
                "allocator_background_threads": True,  # gives memory back to the system
            }
        )
        self._has_reader = False
        self.slow: list[tuple[str, float]] = []

    def attach(self, path: Path, kind: str | None) -> None:
        """Attach the store as `store`, in the place of one that was.

        Raises:
            HistoryError: It is not there, not readable, of another version, or holds the other kind of numbers.
        """
        name, home = (path, path.parent) if self._database is None else (self._database.name,) * 2
        nothing = f"nothing is recorded in {home} yet; start the dashboard, or run `pnl sync`"
        if self._database is None and not path.exists():
            raise HistoryError(nothing)
        try:
            self._load_reader()
            self._connection.execute("DETACH DATABASE IF EXISTS store")
            self._connection.execute(f"ATTACH {quoted(self._source(path))} AS store (TYPE {self._engine}, READ_ONLY)")
            if not self._is_begun():
                raise HistoryError(nothing)
            version = int(self.stored(VERSION[self._engine])[0][0])
            if version != len(MIGRATIONS):
                raise HistoryError(
                    f"{name} is of another version of pnl (schema {version}, this one reads {len(MIGRATIONS)}); "
                    "start the dashboard with this version once, or install the newer one"
                )
            if not (kinds := self.stored("SELECT value FROM meta WHERE key = 'kind'")):
                raise HistoryError(nothing)
        except duckdb.Error as error:
            raise HistoryError(f"{name} cannot be read: {_first_line(error)}") from None
        if kind is not None and kinds[0][0] != kind:
            raise HistoryError(f"{home} holds {kinds[0][0]} numbers, and {kind} ones are asked for")

    @property
    def is_database(self) -> bool:
        """Whether the store is a database, and no file."""
        return self._database is not None

    def _load_reader(self) -> None:
        if self._has_reader:
            return
        self._connection.execute(f"LOAD {quoted(extension(self._engine))}")
        if self._database is None:
            # A scan in several threads is no snapshot: each thread reads in a transaction of its own.
            self._connection.execute("SET sqlite_disable_multithreaded_scans = true")
        else:
            os.putenv("PGPASSWORD", self._database.password)  # so it is in no statement, error or list of DuckDB's
        self._has_reader = True

    def _source(self, path: Path) -> str:
        if self._database is None:
            return str(path)
        return " ".join(f"{name}={_in_conninfo(value)}" for name, value in self._database.parameters.items())

    def _is_begun(self) -> bool:
        """Whether there are tables; a file has them from its first commit on."""
        return self._database is None or self.stored("SELECT to_regclass('public.meta')::text")[0][0] is not None

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB's own connection."""
        return self._connection

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement's result."""
        with self._timed(statement):
            return self._connection.execute(statement, list(values)).fetchall()

    def pieces(self, statement: str, values: Sequence[object], count: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a statement's result, so many at a time."""
        with self._timed(statement):
            found = self._connection.execute(statement, list(values))
            while rows := found.fetchmany(count):
                yield rows

    def columns(self, statement: str, values: Sequence[object] = ()) -> Columns:
        """The result's columns by name."""
        with self._timed(statement):
            return self._connection.execute(statement, list(values)).fetchnumpy()

    def stored(self, statement: str) -> list[tuple[Any, ...]]:
        """All rows of a statement that the store itself runs, by its own indexes; from SQLite every value is text."""
        return self.rows(f"SELECT * FROM {self.stored_query(statement)}")

    def stored_query(self, statement: str) -> str:
        """A table of what the store answers; from SQLite every column of it is text."""
        return f"{self._engine}_query('store', {quoted(statement)})"

    def insert(self, table: str, columns: Mapping[str, Sequence[int] | Sequence[str]]) -> None:
        """Fill a table by whole columns, each as one text: value by value it would take twenty times as long."""
        texts = [msgspec.json.encode(list(column)).decode() for column in columns.values()]
        kinds = ["BIGINT" if isinstance(column[0], int) else "VARCHAR" for column in columns.values()]
        given = ", ".join(f"unnest(from_json(?, '[\"{kind}\"]'))" for kind in kinds)
        self.rows(f"INSERT INTO {table} SELECT {given}", texts)

    def insert_numbers(self, table: str, columns: Mapping[str, Column]) -> None:
        """Fill a table by whole columns of numbers."""
        with self._given(columns):
            self.rows(f"INSERT INTO {table} BY NAME SELECT * FROM given")

    def write_parquet(self, query: str, columns: Mapping[str, Column], path: str) -> None:
        """Write what a query makes of some columns, as `given`, to a file, whole or not at all.

        Raises:
            HistoryError: It cannot be written there.
        """
        with self._given(columns):
            self.copy_to_parquet(query, (), path)

    @contextmanager
    def _given(self, columns: Mapping[str, Column]) -> Iterator[None]:
        """Have columns as the table `given`."""
        self._connection.register("given", dict(columns))
        try:
            yield
        finally:
            self._connection.unregister("given")

    def copy_to_parquet(self, query: str, values: Sequence[object], path: str) -> None:
        """Write what a query finds to a file, whole or not at all.

        Raises:
            HistoryError: It cannot be written there.
        """
        unfinished = Path(f"{path}.part")
        try:
            self.rows(f"COPY ({query}) TO {quoted(str(unfinished))} (FORMAT parquet, COMPRESSION zstd)", values)
            unfinished.replace(path)
        except (duckdb.Error, OSError) as error:
            unfinished.unlink(missing_ok=True)
            raise HistoryError(f"{path} cannot be written: {_first_line(error)}") from None

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


def _in_conninfo(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _first_line(error: Exception) -> str:
    """What a person reads of an error; in what is said of a connection, the parameters of it are left out."""
    return re.sub(r'Unable to connect to Postgres at ".*?": ', "", str(error).splitlines()[0])
