"""Rows from outside, made into records: each value is bounded and exact, or its row is refused and named."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from pnl.errors import BadRow
from pnl.records import EPOCH, MICRO, ZERO, Refused

ONE = Decimal(1)
CENTI = Decimal("0.01")
FINEST_CENTS = Decimal("1e-18")  # bills are exact to fractions of a cent; finer than this is no money
LARGEST = Decimal(1_000_000_000)
LARGEST_COUNT = Decimal(10**12)
LONGEST_TEXT = 300
LONGEST_RAW = 4000
FARTHEST = datetime(2200, 1, 1, tzinfo=UTC)
FARTHEST_S = int(FARTHEST.timestamp())

Row = Mapping[str, Any]


def convert[T](rows: Iterable[Any], make: Callable[[Row], T], *, what: str, key: str) -> tuple[list[T], list[Refused]]:
    """Make records of rows.

    Args:
        rows: As decoded from the wire.
        make: Row to record; raises `BadRow`.
        what: What one row is, for the text of a refusal.
        key: The field that names a row.

    Returns:
        The records, and the rows that were set aside.
    """
    made, refused = [], []
    for number, row in enumerate(rows, start=1):
        try:
            made.append(make(_object(row)))
        except BadRow as error:
            refused.append(Refused(what, _name(row, key) or f"number {number}", str(error), _raw(row)))
    return made, refused


def _raw(row: Any) -> str:
    try:
        return _storable(json.dumps(row, default=str, ensure_ascii=False))[:LONGEST_RAW]
    except RecursionError:
        return ""


def _object(row: Any) -> Row:
    if not isinstance(row, Mapping):
        raise BadRow("is not an object")
    return row


def _name(row: Any, key: str) -> str:
    name = row.get(key) if isinstance(row, Mapping) else None
    return _storable(str(name))[:60] if isinstance(name, str | int) else ""


def text(row: Row, field: str) -> str:
    """A field that must be a text with something in it."""
    value = row.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT or _storable(value) != value:
        raise BadRow(f"{field} is {_shown(value)}, should be a text")
    return value


def amount(
    row: Row, field: str, *, unit: Decimal = MICRO, least: Decimal | None = None, most: Decimal = LARGEST
) -> Decimal:
    """A field that must be a finite number of sane size.

    Args:
        row: The row.
        field: Its field, a text or a JSON number.
        unit: The finest step that can be recorded exactly.
        least: The smallest value that makes sense.
        most: The largest.
    """
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise BadRow(f"{field} is {_shown(value)}, should be a number")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise BadRow(f"{field} is {_shown(value)}, should be a number") from None
    if not number.is_finite() or abs(number) > most:
        raise BadRow(f"{field} is {_shown(value)}, should be a finite number of at most {most:,}")
    if least is not None and number < least:
        raise BadRow(f"{field} is {_shown(value)}, should be at least {least}")
    if number != number.quantize(unit):
        raise BadRow(f"{field} is {_shown(value)}, finer than {unit}, the smallest step recorded")
    return number


def optional_amount(row: Row, field: str) -> Decimal | None:
    """Like `amount`, None when the field is absent or empty."""
    return None if row.get(field) in (None, "") else amount(row, field)


def cents(row: Row, field: str) -> Decimal:
    """A field in whole or fractional cents, as US dollars."""
    return amount(row, field, unit=FINEST_CENTS).scaleb(-2)


def instant(row: Row, field: str) -> datetime:
    """A field that must be an RFC 3339 instant of a year that a page can show."""
    value = row.get(field)
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise BadRow(f"{field} is {_shown(value)}, should be a time such as 2026-01-31T12:00:00Z") from None
    if not EPOCH <= moment < FARTHEST:
        raise BadRow(f"{field} is in the year {moment.year}, should be between {EPOCH.year} and {FARTHEST.year}")
    return moment


def unix_instant(row: Row, field: str) -> datetime:
    """A field that must be an instant in whole seconds since 1970."""
    seconds = amount(row, field, unit=ONE, least=ZERO, most=Decimal(FARTHEST_S))
    return EPOCH + timedelta(seconds=int(seconds))


def day(row: Row, field: str) -> date:
    """A field that must be a date or an instant; of an instant, its UTC day."""
    return instant(row, field).date()


def word(row: Row, field: str, allowed: Iterable[str]) -> str:
    """A field that must be one of a few words."""
    value = row.get(field)
    if value not in (words := sorted(allowed)):
        raise BadRow(f"{field} is {_shown(value)}, should be one of {', '.join(words)}")
    return str(value)


def label(value: object) -> str:
    """A title from outside, cut to a length that a page can hold; still hostile."""
    return _storable(value[:LONGEST_TEXT]) if isinstance(value, str) else ""


def _storable(text: str) -> str:
    """The text without what JSON can hold and a store cannot: halves of surrogate pairs (UTF-8), NUL (PostgreSQL)."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


def _shown(value: object) -> str:
    if isinstance(value, list | Mapping):
        return "a list" if isinstance(value, list) else "an object"
    if value is None:
        return "missing"
    return (str(value) if isinstance(value, Decimal) else repr(value))[:40]
