"""A real account's history, from two CSV files, shown at once or replayed at a chosen speed."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from pnl.errors import SimulatorError
from pnl.simulator.book import cash_events
from pnl.simulator.nouns import (
    DAY,
    DOLLAR_PRICE,
    SECOND,
    Cutoff,
    Fill,
    Market,
    Quote,
    Settlement,
    Transfer,
    micros,
)
from pnl.simulator.world import World

_FILL_COLUMNS = (
    *("fill_id", "trade_id", "order_id", "ticker", "market_ticker", "side", "action", "outcome_side", "book_side"),
    *("count_fp", "yes_price_dollars", "no_price_dollars", "fee_cost", "is_taker", "created_time", "ts"),
    "subaccount_number",
)
_SETTLEMENT_COLUMNS = (
    *("ticker", "event_ticker", "market_result", "yes_count_fp", "yes_total_cost_dollars", "no_count_fp"),
    *("no_total_cost_dollars", "revenue", "fee_cost", "value", "settled_time"),
)
_LIVE_WINDOW = 30 * DAY
_FAR = 1 << 62  # after everything

type _Row = Mapping[str, str]


class RecordedAccount(World):
    """An account as `fills.csv` and `settlements.csv` in `folder` recorded it.

    Args:
        folder: Holds the two files; both are read at once, and no more.
        speed: None shows the whole recording. A number replays it from its first fill on, that many
            recorded seconds a second, beginning with the first question; what settled before is known.

    Raises:
        SimulatorError: A file is missing or a value makes no sense; the text names file, line and column.

    A recording has no transfers, so one deposit stands before it, large enough that cash never went below zero.
    Settlements all stay in the live tier; fills older than 30 days before the last known one are archived.
    """

    def __init__(self, folder: Path | str, speed: float | None = None) -> None:
        """Read and check both files."""
        super().__init__()
        self._speed = speed
        self._started_at: int | None = None
        fills = _read(Path(folder) / "fills.csv", _FILL_COLUMNS, _fill)
        settlements = _read(Path(folder) / "settlements.csv", _SETTLEMENT_COLUMNS, _settlement)
        markets = _markets(fills, settlements)
        self._admit(markets, _opening_deposit(markets))
        self._first_at = self._fills[0].at if self._fills else min((row.at for row in settlements), default=0)

    def instant(self, now: datetime) -> int:
        """The recording's own time; past its end for good when it is shown whole."""
        if self._speed is None:
            return _FAR
        if self._started_at is None:
            self._started_at = micros(now)
        return self._first_at + int((micros(now) - self._started_at) * self._speed)

    def cutoff(self, now: datetime) -> Cutoff:
        """Thirty days before the last fill known; no settlement is archived."""
        known = self.fills(now)
        first = min((row.at for row in self._settlements), default=0)
        return Cutoff((known[-1].at if known else self._first_at) - _LIVE_WINDOW, min(first, self._first_at) - DAY)

    def quote(self, now: datetime, market: Market) -> Quote:
        """A cent to each side of the latest fill; an empty book once settled."""
        at = self.instant(now)
        if market.is_settled(at):
            return Quote(0, DOLLAR_PRICE, (market.settlement.value_cents or 0) * 100)
        last = next((fill.price for fill in reversed(market.fills) if fill.at <= at), DOLLAR_PRICE // 2)
        return Quote(max(last - 100, market.tick), min(last + 100, DOLLAR_PRICE - market.tick), last)


def _markets(fills: Iterable[Fill], settlements: Iterable[Settlement]) -> list[Market]:
    traded = defaultdict(list)
    for fill in sorted(fills, key=lambda fill: fill.key):
        traded[fill.ticker].append(fill)
    markets = [_market(row, tuple(traded.pop(row.ticker, ()))) for row in settlements]
    if traded:
        raise SimulatorError(f"settlements.csv: no settlement for {next(iter(traded))}, which fills.csv trades")
    return markets


def _market(row: Settlement, fills: tuple[Fill, ...]) -> Market:
    open_at = fills[0].at if fills else row.at - 900 * SECOND
    tick = 10 if any(fill.price % 100 for fill in fills) else 100
    return Market(row.ticker, row.event, row.ticker, open_at, max(open_at, row.at - SECOND), row, fills, tick)


def _opening_deposit(markets: Iterable[Market]) -> Iterator[Transfer]:
    changes = sorted(change for market in markets for change in cash_events(market))
    total = lowest = 0
    for _, change in changes:
        total += change
        lowest = min(lowest, total)
    if changes:
        at = changes[0][0] - DAY
        yield Transfer("recorded-opening", True, at, at, -(lowest // 1_000_000_000) * 100_000)  # noqa: FBT003


def _read[T](path: Path, columns: Iterable[str], parse: Callable[[_Row], T]) -> list[T]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            _check_header(path, columns, reader.fieldnames or ())
            return [_parsed(path, reader.line_num, row, parse) for row in reader]
    except OSError as error:
        raise SimulatorError(f"{path.name}: cannot be read from {path.parent}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SimulatorError(f"{path.name}: is not UTF-8 text") from error


def _check_header(path: Path, columns: Iterable[str], header: Iterable[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        raise SimulatorError(f"{path.name} line 1: column missing: {', '.join(missing)}")


def _parsed[T](path: Path, line: int, row: _Row, parse: Callable[[_Row], T]) -> T:
    try:
        return parse(row)
    except (ValueError, TypeError) as error:
        raise SimulatorError(f"{path.name} line {line}: {error}") from error


def _fill(row: _Row) -> Fill:
    price = _units(row, "yes_price_dollars", 4)
    _check(row, "no_price_dollars", price + _units(row, "no_price_dollars", 4) == DOLLAR_PRICE)
    is_yes = _one_of(row, "outcome_side", "yes", "no") == "yes"
    _check(row, "book_side", row["book_side"] == ("bid" if is_yes else "ask"))
    return Fill(
        fill_id=row["fill_id"],
        order_id=row["order_id"],
        ticker=row["ticker"],
        at=_instant(row, "created_time"),
        is_yes=is_yes,
        count=_units(row, "count_fp", 2),
        price=price,
        fee_micros=_units(row, "fee_cost", 6),
        is_taker=_one_of(row, "is_taker", "true", "false") == "true",
        side=_one_of(row, "side", "yes", "no"),
        action=_one_of(row, "action", "buy", "sell"),
    )


def _settlement(row: _Row) -> Settlement:
    money, number = partial(_units, row, digits=6), partial(_units, row, digits=2)
    return Settlement(
        ticker=row["ticker"],
        event=row["event_ticker"],
        at=_instant(row, "settled_time"),
        result=_one_of(row, "market_result", "yes", "no", "scalar"),  # type: ignore[arg-type]
        yes_count=number("yes_count_fp"),
        yes_cost_micros=money("yes_total_cost_dollars"),
        no_count=number("no_count_fp"),
        no_cost_micros=money("no_total_cost_dollars"),
        revenue_cents=_units(row, "revenue", 0),
        value_cents=_units(row, "value", 0) if row["value"] else None,
        fee_micros=money("fee_cost"),
    )


# "12.5" with 2 digits is 1250; text that is not a plain number, or is finer than that, makes no sense.
def _units(row: _Row, column: str, digits: int) -> int:
    whole, _, part = (row[column] or "").partition(".")
    text = whole + part.ljust(digits, "0")
    _check(row, column, text.isdecimal() and text.isascii() and len(part) <= digits)
    return int(text)


def _instant(row: _Row, column: str) -> int:
    try:
        return micros(datetime.fromisoformat(row[column]))
    except (ValueError, TypeError):
        _check(row, column, fine=False)
        raise


def _one_of(row: _Row, column: str, *words: str) -> str:
    _check(row, column, row[column] in words)
    return row[column]


def _check(row: _Row, column: str, fine: bool) -> None:  # noqa: FBT001
    if not fine:
        raise ValueError(f"{column} makes no sense: {row[column]!r}")
