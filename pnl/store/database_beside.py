"""What another process records in a database of PostgreSQL."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from pydantic import SecretStr

from pnl.errors import StoreNotReady
from pnl.records import Mark, Snapshot
from pnl.schema import MIGRATIONS
from pnl.store.address import Address
from pnl.store.beside import check_kind, read_newest
from pnl.store.place import Kind
from pnl.store.postgres import Connection, connect, holder, known_version, own_name, said_of
from pnl.store.tables import Recorded, load, read_marks


class DatabaseBeside:
    """See `Beside`."""

    where = "in the same database"

    def __init__(self, url: SecretStr, kind: Kind) -> None:
        self._address = Address.of(url)
        self._kind = kind
        self._seen = -1
        self._open: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._open is not None:
            self._open.raw.close()

    def has_grown(self) -> bool:
        """See `Beside`."""
        with self._connected() as connection:
            commits: int = connection.execute("SELECT commits FROM chain").fetchone()[0]
        is_new, self._seen = commits != self._seen, commits
        return is_new

    def recorded(self) -> Recorded:
        """See `Beside`."""
        with self._connected() as connection, connection.raw.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return load(connection)

    def marks(self) -> tuple[Mark, ...]:
        """See `Beside`."""
        with self._connected() as connection:
            return read_marks(connection)

    def newest(self, sources: Iterable[str]) -> Snapshot | None:
        """See `Beside`."""
        with self._connected() as connection:
            return read_newest(connection, sources)

    def holder(self) -> str | None:
        """See `Beside`; a replica does not know."""
        with self._connected() as connection:
            return holder(connection)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with said_of(self._address, "read"):
            if self._open is None or self._open.raw.closed:
                self._open = self._checked()
            yield self._open

    def _checked(self) -> Connection:
        with ExitStack() as opened:
            connection = connect(self._address, own_name(), read_only=True)
            opened.callback(connection.raw.close)
            self._check(connection)
            opened.pop_all()
        return connection

    def _check(self, connection: Connection) -> None:
        if known_version(connection, self._address) < len(MIGRATIONS):
            raise StoreNotReady(f"{self._address} holds nothing yet, or what an older version of pnl recorded")
        check_kind(connection, self._kind, str(self._address), "PNL_STORE_URL to another database")
