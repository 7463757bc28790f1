"""Where a record is kept, and all that depends on it: a file of SQLite, or a database of PostgreSQL."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

from pnl.errors import ConfigError
from pnl.store.connection import Connection
from pnl.store.tables import Change, Recorded

POSTGRES = frozenset({"psycopg", "psycopg_binary", "psycopg_c", "psycopg_pool"})

type Kind = Literal["real", "simulated"]


@contextmanager
def with_postgres() -> Iterator[None]:
    """Import what PostgreSQL needs inside.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in POSTGRES:
            raise
        raise ConfigError("PNL_STORE_URL needs one more package: pip install 'pnl[postgres]'") from error


class Place(Protocol):
    """The home of one record; its text is its name for people, without a secret.

    `open_to_write` and `write` are for the writer's thread; the others are for any.
    """

    def hold(self) -> None:
        """Keep other processes from writing; blocks.

        Raises:
            StoreHeld: One of them does.
            StoreReadOnly: Nothing can be written there.
            StoreError: Whatever else is wrong with it.
        """
        ...

    def release(self) -> None:
        """Let another process in; doing so twice is fine."""
        ...

    def open_to_write(self) -> AbstractContextManager[Recorded]:
        """Bring what is there to this version and check it; gives what is recorded.

        Raises:
            StoreError: It cannot be used; says why, and what to do.
        """
        ...

    def write(self, changes: Sequence[Change], *, broken: Container[str]) -> None:
        """Write changes in one transaction, see `tables.write`; it is on disk when this returns.

        Raises:
            StoreHeld: Another process has recorded meanwhile, as this one had lost its hold.
            Exception: What `is_passing` tells about.
        """
        ...

    def is_passing(self, error: Exception) -> bool:
        """Whether an error of `write` is of the place, and not of what was to be written: so it goes away some day."""
        ...

    def look[T](self, look: Callable[[Connection], T]) -> T:
        """What a function finds on a connection that cannot write."""
        ...
