"""Rows of the ledger in the formats that programs and people read: CSV, JSON and a workbook, a few rows in memory.

A row is an aware instant, then texts, then exact numbers as texts; None where there is none.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

# What a spreadsheet takes for a formula, also behind what it does not show; a quote before it makes it a text.
FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]*[=+\-@＝＋－＠]")  # noqa: RUF001
RAW_XML = re.compile(r"<r>.*</r>", re.DOTALL)  # XlsxWriter would take it for markup of its own
WIDTHS = {"at": 19, "market": 30, "event": 24, "series": 14, "item": 24, "deal": 14, "title": 40, "fill_id": 20}
WIDTH = 12

type Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a file holds.

    Attributes:
        about: What was asked for, as names and texts.
        texts: Names of the columns with texts.
        numbers: Names of the columns behind them.
        sums: What some of the numbers sum to, as exact texts.
        rows: How many there are.
    """

    about: Sequence[tuple[str, str]]
    texts: Sequence[str]
    numbers: Sequence[str]
    sums: Mapping[str, str]
    rows: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns."""
        return ("at", *self.texts, *self.numbers)

    @property
    def first_number(self) -> int:
        """Which column is the first with a number."""
        return 1 + len(self.texts)


class LedgerFile(Protocol):
    """A file that takes rows."""

    def write(self, rows: Iterable[Row]) -> None:
        """Write some more."""

    def close(self) -> None:
        """Write what stands behind the last row."""


class CsvFile:
    """CSV in UTF-8: instants with their offset, plain numbers, and no text that a spreadsheet would run."""

    def __init__(self, path: Path, sheet: Sheet) -> None:
        self._first_number = sheet.first_number
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)  # what ends a line, \r too, is quoted only if both letters end them
        self._writer.writerow(sheet.columns)

    def write(self, rows: Iterable[Row]) -> None:
        """Write some more."""
        last = self._first_number
        self._writer.writerows((_iso(row[0]), *map(harmless, row[1:last]), *row[last:]) for row in rows)

    def close(self) -> None:
        """The last row is one like the others: sums are for whoever reads."""
        self._file.close()


class JsonFile:
    """One JSON list of objects, a line each; instants with their offset, numbers as texts."""

    def __init__(self, path: Path, sheet: Sheet) -> None:
        self._columns = sheet.columns
        self._file = path.open("w", encoding="utf-8")
        self._between = "[\n"

    def write(self, rows: Iterable[Row]) -> None:
        """Write some more."""
        for row in rows:
            values = dict(zip(self._columns, (_iso(row[0]), *row[1:]), strict=True))
            self._file.write(self._between + json.dumps(values, ensure_ascii=False))
            self._between = ",\n"

    def close(self) -> None:
        """End the list."""
        self._file.write("[]\n" if self._between == "[\n" else "\n]\n")
        self._file.close()


FORMATS: Mapping[str, Mapping[str, Any]] = {
    "at": {"num_format": "yyyy-mm-dd hh:mm:ss", "align": "left"},
    "contracts": {"num_format": "#,##0.00"},
    "usd": {"num_format": "#,##0.00####"},
    "bold": {"bold": True},
    "sum": {"num_format": "#,##0.00####", "bold": True, "top": 1},
}


class XlsxFile:
    """A workbook of two sheets: what it is about, and the rows with their sums below.

    Instants are by the wall clock of their offset, which Excel has none of; numbers have 16 digits.
    """

    def __init__(self, path: Path, sheet: Sheet) -> None:
        from xlsxwriter import Workbook  # noqa: PLC0415 - 20 MB and half a second, for those who want a workbook alone

        as_texts = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
        self._book = Workbook(str(path), {"constant_memory": True, "tmpdir": str(path.parent), **as_texts})
        self._formats = {name: self._book.add_format(how) for name, how in FORMATS.items()}
        self._sheet = sheet
        self._written = 0
        self._tell(sheet.about)
        self._rows = self._begin()

    def _tell(self, about: Iterable[tuple[str, str]]) -> None:
        page = self._book.add_worksheet("About")
        page.set_column(0, 0, 18)
        page.set_column(1, 1, 80)
        for number, (name, text) in enumerate(about):
            page.write_string(number, 0, name, self._formats["bold"])
            page.write_string(number, 1, _in_xml(text))

    def _begin(self) -> Any:
        rows = self._book.add_worksheet("Ledger")
        rows.activate()
        rows.freeze_panes(1, 1)
        rows.autofilter(0, 0, self._sheet.rows, len(self._sheet.columns) - 1)
        for column, name in enumerate(self._sheet.columns):
            rows.set_column(column, column, WIDTHS.get(name, max(WIDTH, len(name) + 3)))
            rows.write_string(0, column, name, self._formats["bold"])
        return rows

    def write(self, rows: Iterable[Row]) -> None:
        """Write some more; what is not there stays an empty cell."""
        for row in rows:
            self._written += 1
            self._rows.write_datetime(self._written, 0, row[0].replace(tzinfo=None), self._formats["at"])
            for column, value in enumerate(row[1:], 1):
                if value is not None:
                    self._put(column, value)

    def _put(self, column: int, value: str) -> None:
        if column < self._sheet.first_number:
            self._rows.write_string(self._written, column, _in_xml(value))
        else:
            how = self._formats.get(self._sheet.columns[column], self._formats["usd"])
            self._rows.write_number(self._written, column, float(value), how)

    def close(self) -> None:
        """Write the sums, which sorting and filtering leave where they are."""
        from xlsxwriter.exceptions import FileCreateError  # noqa: PLC0415 - as above

        last = self._sheet.rows + 1
        self._rows.write_string(last, 0, "Sum", self._formats["bold"])
        for name, usd in self._sheet.sums.items():
            self._rows.write_number(last, self._sheet.columns.index(name), float(usd), self._formats["sum"])
        try:
            self._book.close()
        except FileCreateError as error:
            raise error.args[0] from None  # the OSError in it


WRITERS: Mapping[str, Callable[[Path, Sheet], LedgerFile]] = {"csv": CsvFile, "json": JsonFile, "xlsx": XlsxFile}


def harmless(text: str | None) -> str | None:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text is not None and FORMULA.match(text) else text


def _in_xml(text: str) -> str:
    """A text that stays one in a workbook."""
    return f"'{text}" if RAW_XML.fullmatch(text) else text


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")
