"""The two places in which a record can be, as a test sees them: a file of SQLite, and a database of PostgreSQL."""

import sqlite3
from contextlib import closing

from pnl.history.client import History, database_at
from pnl.store import FILE, Store

KIND = "simulated"
ZONE = "America/New_York"


class Home:
    """One place: who asks for its rows is another program than the store."""

    def __init__(self, folder, server=None):
        self.folder = folder
        self._server = server
        self.url = None if server is None else server.new_database()

    @property
    def is_file(self):
        """Whether it is SQLite's."""
        return self.url is None

    def store(self, **options):
        """A store that commits as fast as it can."""
        store = Store(self.folder, **{"kind": KIND, "commit_ms": 0, "url": self.url} | options)
        store.home = self
        return store

    def history(self, **options):
        """Who answers about the past."""
        asked = {"kind": KIND, "zone": ZONE, "deadline_s": 60, "database": self.url and database_at(self.url)}
        return History(self.folder / FILE, **asked | options)

    def rows(self, query):
        """What a query finds."""
        if not self.is_file:
            return self._server.rows(self.url, query)
        with closing(sqlite3.connect(self.folder / FILE)) as reader:
            return reader.execute(query).fetchall()

    async def recorded(self):
        """What the next start finds."""
        async with self.store() as store:
            return store.recorded

    @property
    def columns(self):
        """The columns of every table."""
        found = {}
        for table, column in self.rows(COLUMNS[self.is_file]):
            found.setdefault(table, []).append(column)
        return found

    @property
    def indexes(self):
        """The names of all indexes but those of keys."""
        return {name for (name,) in self.rows(INDEXES[self.is_file])}


COLUMNS = {
    True: "SELECT m.name, c.name FROM sqlite_schema AS m, pragma_table_xinfo(m.name) AS c "
    "WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid",
    False: "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
    "ORDER BY table_name, ordinal_position",
}
INDEXES = {
    True: "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
    False: "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey'",
}
