"""PostgreSQL as the store's statements want it: connections, the tables, and who holds a database.

One process writes: it holds an advisory lock in the session that it writes in. So whoever loses the connection has lost
the right to write too, and nobody has to ask.
"""

import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import make_conninfo
from psycopg.types.numeric import Int8Dumper

from pnl.errors import StoreError
from pnl.schema import FIRST_CHAIN, MIGRATIONS
from pnl.store.address import Address
from pnl.store.connection import Cursor

LOCK = (0x706E6C, 1)  # "pnl" in ASCII; advisory locks are of one database
LONGEST_NAME = 63  # PostgreSQL cuts a session's name there
SESSION = (
    *("search_path=public", "client_encoding=UTF8", "default_transaction_isolation=read\\ committed"),
    # The server too has to notice soon that a writer's machine is gone: another one waits for its lock.
    *("tcp_keepalives_idle=2", "tcp_keepalives_interval=1", "tcp_keepalives_count=2"),
)
HOLDER = (
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = %s AND objid = %s"
)


class Whole(Loader):
    """A sum of integers, which PostgreSQL makes a `numeric`."""

    def load(self, data: Buffer) -> int:
        """The integer."""
        return int(bytes(data))


class Connection:
    """A connection that understands the store's statements; every statement outside of a transaction is one."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        """See `store.connection`."""
        return self.raw.execute(_with_places(statement), values)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """See `store.connection`; all rows are sent before the first answer is waited for."""
        rows = list(rows)
        if rows:
            with self.raw.cursor() as cursor:
                cursor.executemany(_with_places(statement), rows)


@lru_cache(1000)
def _with_places(statement: str) -> bytes:
    return statement.replace("%", "%%").replace("?", "%s").encode()


def own_name() -> str:
    """A name for a session that no other process has; behind its first word people read who it is."""
    name = f"pnl-{uuid4().hex[:8]} process {os.getpid()} on {socket.gethostname()}"
    return name.encode("ascii", "replace")[:LONGEST_NAME].decode()


def connect(address: Address, name: str, *, synchronous: str = "on", read_only: bool = False) -> Connection:
    """Connect; each session has a name by which others see who it is.

    Raises:
        psycopg.Error: It cannot be reached, or refuses.
    """
    settings = (*SESSION, f"synchronous_commit={synchronous}", f"default_transaction_read_only={read_only}")
    options = " ".join(f"-c {setting}" for setting in settings)
    where = make_conninfo(**address.parameters, password=address.password, application_name=name, options=options)
    raw = psycopg.connect(where, autocommit=True)
    raw.adapters.register_loader("numeric", Whole)
    raw.adapters.register_dumper(int, Int8Dumper)  # else a small number is taken for a small type, and overflows
    return Connection(raw)


@contextmanager
def said_of(address: Address, what: str) -> Iterator[None]:
    """Tell of what PostgreSQL refuses as an error of the store."""
    try:
        yield
    except psycopg.Error as error:
        advice = "; is PNL_STORE_URL right, and the server up?" if isinstance(error, psycopg.OperationalError) else ""
        raise StoreError(f"{address} cannot be {what}: {first_line(error)}{advice}") from None


def first_line(error: Exception) -> str:
    """What a person reads of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def holding_session(connection: Connection) -> str | None:
    """The name of the session that writes, None if there is none."""
    found = connection.raw.execute(HOLDER, LOCK).fetchone()
    return None if found is None else found[0]


def holder(connection: Connection) -> str | None:
    """The process that writes, for people; None if there is none."""
    name = holding_session(connection)
    return None if name is None else name.partition(" ")[2] or "another process"


def known_version(connection: Connection, address: Address) -> int:
    """Which version of the tables is there; 0 of an empty database.

    Raises:
        StoreError: A newer version of this program made them, or another program.
    """
    if connection.execute("SELECT to_regclass('public.meta')").fetchone() == (None,):
        return 0
    found = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if found is None:
        raise StoreError(f"{address} holds tables of another program; set PNL_STORE_URL to a database of its own")
    version = int(found[0])
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{address} was written by a newer version of pnl (schema {version}, this one knows {len(MIGRATIONS)}); "
            "it was left untouched. Install that version, or set PNL_STORE_URL to another database"
        )
    return version


def migrate(connection: Connection, address: Address) -> None:
    """Bring the tables to this version, all steps or none."""
    version = known_version(connection, address)
    with connection.raw.transaction():
        for script in MIGRATIONS[version:]:
            connection.raw.execute(_in_its_words(script).encode())
        connection.execute(
            "INSERT INTO meta VALUES ('schema', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (str(len(MIGRATIONS)),),
        )


def _in_its_words(script: str) -> str:
    """A step of `schema.MIGRATIONS` as PostgreSQL says it; the number that SQLite gives to rows is a column here."""
    script = script.replace(FIRST_CHAIN, "INSERT INTO chain VALUES (1, 0, 0, 0, 0, 0);")
    script = re.sub(r"\) STRICT(, WITHOUT ROWID)?;", ");", script).replace("INTEGER", "BIGINT")
    numbered = "CREATE TABLE superseded (rowid BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    return script.replace("CREATE TABLE superseded (", numbered)
