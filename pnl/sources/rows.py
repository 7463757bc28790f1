"""Rows from outside, made into records: each value is bounded and exact, or its row is refused and named."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from pnl.errors import BadRow

MICRO = Decimal("1e-6")
CENTI = Decimal("0.01")
LARGEST = Decimal(1_000_000_000)
LARGEST_COUNT = Decimal(10**12)
LONGEST_TEXT = 300

Row = Mapping[str, Any]


def convert[T](rows: Iterable[Any], make: Callable[[Row], T], *, what: str, key: str) -> tuple[list[T], list[str]]:
    """Make records of rows.

    Args:
        rows: As decoded from the wire.
        make: Row to record; raises `BadRow`.
        what: What one row is, for the text of a refusal.
        key: The field that names a row.

    Returns:
        The records, and one line for each row that was set aside.
    """
    made, refused = [], []
    for number, row in enumerate(rows, start=1):
        name = row.get(key, f"number {number}") if isinstance(row, Mapping) else f"number {number}"
        try:
            if not isinstance(row, Mapping):
                msg = "is not an object"
                raise BadRow(msg)
            made.append(make(row))
        except BadRow as error:
            refused.append(f"{what} {str(name)[:60]}: {error}")
    return made, refused


def text(row: Row, field: str) -> str:
    """A field that must be a text with something in it."""
    value = row.get(field)
    if not isinstance(value, str) or not value:
        msg = f"{field} is {_shown(value)}, should be a text"
        raise BadRow(msg)
    return value


def amount(
    row: Row, field: str, *, unit: Decimal | None = MICRO, least: Decimal | None = None, most: Decimal = LARGEST
) -> Decimal:
    """A field that must be a finite number of sane size.

    Args:
        row: The row.
        field: Its field, a text or a JSON number.
        unit: The finest step that can be recorded exactly; None: any.
        least: The smallest value that makes sense.
        most: The largest.
    """
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        msg = f"{field} is {_shown(value)}, should be a number"
        raise BadRow(msg)
    try:
        number = Decimal(value)
    except InvalidOperation:
        msg = f"{field} is {_shown(value)}, should be a number"
        raise BadRow(msg) from None
    if not number.is_finite() or abs(number) > most:
        msg = f"{field} is {_shown(value)}, should be a finite number of at most {most:,}"
        raise BadRow(msg)
    if least is not None and number < least:
        msg = f"{field} is {_shown(value)}, should be at least {least}"
        raise BadRow(msg)
    if unit is not None and number != number.quantize(unit):
        msg = f"{field} is {_shown(value)}, finer than {unit}, the smallest step recorded"
        raise BadRow(msg)
    return number


def optional_amount(row: Row, field: str) -> Decimal | None:
    """Like `amount`, None when the field is absent or empty."""
    return None if row.get(field) in (None, "") else amount(row, field)


def cents(row: Row, field: str) -> Decimal:
    """A field in whole or fractional cents, as US dollars."""
    return amount(row, field, unit=None).scaleb(-2)


def instant(row: Row, field: str) -> datetime:
    """A field that must be an RFC 3339 instant."""
    value = row.get(field)
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        msg = f"{field} is {_shown(value)}, should be a time such as 2026-01-31T12:00:00Z"
        raise BadRow(msg) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def day(row: Row, field: str) -> date:
    """A field that must be a date or an instant; of an instant, its UTC day."""
    return instant(row, field).date()


def word(row: Row, field: str, allowed: Iterable[str]) -> str:
    """A field that must be one of a few words."""
    value = row.get(field)
    if value not in (words := sorted(allowed)):
        msg = f"{field} is {_shown(value)}, should be one of {', '.join(words)}"
        raise BadRow(msg)
    return str(value)


def label(value: object) -> str:
    """A title from outside, cut to a length that a page can hold; still hostile."""
    return value[:LONGEST_TEXT] if isinstance(value, str) else ""


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:40]
