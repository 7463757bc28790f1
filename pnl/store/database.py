"""A record in a database of PostgreSQL, for dashboards on several machines."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal
from uuid import uuid4

import psycopg

from pnl.errors import Damaged, StoreError, StoreHeld
from pnl.store import connection as common
from pnl.store.address import Address
from pnl.store.beside import check_kind
from pnl.store.damage import check
from pnl.store.minutes import upsert
from pnl.store.place import Kind
from pnl.store.postgres import LOCK, Connection, connect, holder, holding_session, migrate, own_name, said_of
from pnl.store.tables import Change, Recorded, load, write

SYNCHRONOUS = {"FULL": "on", "NORMAL": "off"}


class DatabasePlace:
    """A database that this process alone writes, as long as its connection lives."""

    def __init__(self, address: Address, kind: Kind, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self._address = address
        self._kind = kind
        self._synchronous = SYNCHRONOUS[synchronous]
        self._name = own_name()
        self._writing: Connection | None = None

    def __str__(self) -> str:
        return str(self._address)

    def hold(self) -> None:
        """See `Place`."""
        with said_of(self._address, "opened"):
            self._writing = self._take()

    def release(self) -> None:
        """See `Place`; where the connection was lost, the server has let go by itself."""
        if self._writing is not None and not self._writing.raw.closed:
            _let_go(self._writing)

    @contextmanager
    def open_to_write(self) -> Iterator[Recorded]:
        """See `Place`."""
        with said_of(self._address, "opened"):
            connection = self.connection
            migrate(connection, self._address)
            with connection.raw.transaction():
                first_ones = (("kind", self._kind), ("identity", uuid4().hex[:16]))
                connection.executemany("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO NOTHING", first_ones)
                check_kind(connection, self._kind, str(self._address), "PNL_STORE_URL to another database")
                connection.execute(upsert("meta", ("key", "value")), ("writer", self._name))
                recorded = self._checked(connection)
        yield recorded

    def write(self, changes: Sequence[Change], *, broken: Container[str]) -> None:
        """See `Place`; a connection that was lost is made anew."""
        connection = self.connection
        with connection.raw.transaction():
            write(connection, changes, broken=broken)

    def is_passing(self, error: Exception) -> bool:
        """See `Place`: the server is gone, or full, or read-only for a while."""
        passing = (psycopg.OperationalError, psycopg.InternalError, psycopg.InterfaceError)
        return isinstance(error, passing) and not isinstance(error, psycopg.errors.ProgramLimitExceeded)

    def look[T](self, look: Callable[[common.Connection], T]) -> T:
        """See `Place`.

        Raises:
            StoreError: It cannot be read.
        """
        with said_of(self._address, "read"):
            connection = connect(self._address, own_name(), read_only=True)
            with connection.raw:
                return look(connection)

    @property
    def connection(self) -> Connection:
        """The writing one, which holds the lock; after a loss a new one, unless another process wrote meanwhile."""
        if self._writing is None or self._writing.raw.closed:
            connection = self._take()
            if connection.execute("SELECT value FROM meta WHERE key = 'writer'").fetchone() != (self._name,):
                _let_go(connection)
                raise self._held("another process")
            self._writing = connection
        return self._writing

    def _take(self) -> Connection:
        connection = connect(self._address, self._name, synchronous=self._synchronous)
        if connection.raw.execute("SELECT pg_try_advisory_lock(%s::int, %s::int)", LOCK).fetchone() == (True,):
            return connection
        with connection.raw:
            session, who = holding_session(connection), holder(connection)
        if session == self._name:  # the server has not noticed yet that the connection before is gone
            raise psycopg.OperationalError("the lost connection still holds the lock")
        raise self._held(who or "another process")

    def _held(self, who: str) -> StoreHeld:
        return StoreHeld(f"{self._address} is in use by {who}; stop it, or set PNL_STORE_URL to another database", who)

    def _checked(self, connection: Connection) -> Recorded:
        """All records, held against the chain."""
        try:
            check(connection)
            return load(connection)
        except Damaged as damage:
            raise StoreError(
                f"{self._address} does not hold what was written to it ({damage}); "
                "restore a backup of it, or set PNL_STORE_URL to an empty database"
            ) from damage


def _let_go(connection: Connection) -> None:
    """Give the lock back and close; it is asked for, as a session ends some time after it is closed."""
    with suppress(psycopg.Error):
        connection.raw.execute("SELECT pg_advisory_unlock(%s::int, %s::int)", LOCK)
    connection.raw.close()
