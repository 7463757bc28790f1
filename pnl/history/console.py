"""A person's own SELECT over the store's tables: nothing else can be read, nothing changed, no setting touched."""

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from pnl.errors import HistoryError
from pnl.history.duck import Duck

HARMLESS = frozenset({"range", "generate_series", "unnest"})
LARGEST_MB = 512


class Console:
    """A connection that is locked once the store is attached."""

    def __init__(self, duck: Duck, path: Path, kind: str | None) -> None:
        duck.attach(path, kind)
        settings = (
            "USE store",
            "SET temp_directory = ''",
            f"SET memory_limit = '{LARGEST_MB}MB'",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        )
        for setting in settings:
            duck.rows(setting)
        self._duck = duck

    def sql(self, *, query: str, rows: int, seconds: float) -> Mapping[str, Any]:
        """The answer to one SELECT; see `History.sql`.

        Raises:
            HistoryError: It is no SELECT, not understood, or took too long.
        """
        try:
            self._check(query)
            clock = threading.Timer(seconds, self._duck.connection.interrupt)
            clock.start()
            try:
                names, found = self._fetched(query, rows + 1)
            finally:
                clock.cancel()
        except duckdb.InterruptException:
            raise HistoryError(f"the query took longer than {seconds:g} s and was stopped") from None
        except duckdb.Error as error:
            raise HistoryError(str(error)) from None
        return {"names": names, "rows": [list(map(_plain, row)) for row in found[:rows]], "is_cut": len(found) > rows}

    def _fetched(self, query: str, most: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        try:
            answer = self._duck.connection.execute(query)
            found = answer.fetchmany(most)
        except duckdb.InvalidInputException:  # Python has no value for instants in a time zone without one more package
            answer = self._duck.connection.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({query})")
            found = answer.fetchmany(most)
        return [column[0] for column in answer.description or ()], found

    def _check(self, query: str) -> None:
        """Let one SELECT pass that calls no function which reads files: DuckDB's SQLite reader heeds no lock."""
        statements = self._duck.connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise HistoryError("one SELECT at a time is answered here, and nothing else")
        [(tree,)] = self._duck.rows("SELECT json_serialize_sql(?)", [query])
        called = {name for name in _table_functions(json.loads(tree)) if name not in HARMLESS}
        if called:
            raise HistoryError(f"the function {', '.join(sorted(called))} cannot be used here")


def _table_functions(node: Any) -> Iterator[str]:
    """Every function of a parsed query that stands where a table would."""
    if isinstance(node, dict):
        if node.get("type") == "TABLE_FUNCTION":
            yield str(node["function"].get("function_name", "?")).lower()
        for child in node.values():
            yield from _table_functions(child)
    elif isinstance(node, list):
        for child in node:
            yield from _table_functions(child)


def _plain(value: Any) -> Any:
    """What can be sent: numbers and texts as they are, exact and dated ones as texts."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
