"""Every text of the page that follows the numbers, by name, as people read it."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from pnl.records import CENT, ZERO, Reading, Snapshot, State, money

UNKNOWN_AT_FIRST = (
    *("net", "trading", "realized", "unrealized", "fees", "costs", "billed", "estimated", "revenue"),
    *("trades", "open_trades", "settled"),
)
LATE = {State.STALE.value: "out of date", State.DOWN.value: "down"}


def fields_of(snapshot: Snapshot | None, sources: Iterable[str] = ()) -> dict[str, str]:
    """Every text of the page that follows the numbers, by name; what is unknown is a dash."""
    if snapshot is None:
        return _nothing_yet(sources)
    trading = snapshot.kalshi_realized + snapshot.kalshi_unrealized
    trades, costs, deals = (snapshot.knows(source) for source in ("kalshi", "anthropic", "john"))
    terms = (trading, -snapshot.kalshi_fees, -snapshot.total_costs, snapshot.total_revenue)
    fields = {
        "net": "—" if snapshot.is_empty else money(snapshot.net_pnl),
        "tone": "flat" if snapshot.is_empty else _tone(snapshot.net_pnl),
        "trading": _known(trading, trades, signed=True),
        "realized": _known(snapshot.kalshi_realized, trades, signed=True),
        "unrealized": _known(snapshot.kalshi_unrealized, trades, signed=True),
        "fees": _known(snapshot.kalshi_fees, trades),
        "costs": _known(snapshot.total_costs, costs),
        "billed": _known(snapshot.billed_costs, costs),
        "estimated": _known(snapshot.estimated_costs, costs),
        "revenue": _known(snapshot.total_revenue, deals),
        "equals": "=" if _adds_up(terms, snapshot.net_pnl) else "≈",
        "exact": f"{snapshot.net_pnl:f} US dollars",
        "trades": _counted(snapshot.trade_count, trades),
        "open_trades": _counted(snapshot.open_trade_count, trades),
        "settled": _counted(snapshot.settled_market_count, trades),
        "as_of": _iso(snapshot.as_of),
        "state": "complete" if snapshot.complete else "partial",
        "warning": "\n".join((*_warnings(snapshot), *snapshot.missing)),
        "notes": "\n".join(snapshot.notes),
        "drift": money(snapshot.drift_usd),
        "drift.state": snapshot.agreement.value,
    }
    for reading in snapshot.sources:
        fields |= _chip(reading)
    return fields


def _known(usd: Decimal, is_known: bool, *, signed: bool = False) -> str:  # noqa: FBT001 - reads as "known or not"
    """Unknown is not zero: a part whose source never answered is a dash, unless another source brought some of it."""
    return money(usd, signed=signed) if is_known or usd else money(None)


def _counted(count: int, is_known: bool) -> str:  # noqa: FBT001 - as above
    return f"{count:,}" if is_known or count else "—"


def _nothing_yet(sources: Iterable[str]) -> dict[str, str]:
    texts = dict.fromkeys(UNKNOWN_AT_FIRST, "—") | {
        "tone": "flat",
        "equals": "=",
        "exact": "",
        "as_of": "",
        "state": "partial",
    }
    texts |= {"warning": "Waiting for the first answers.", "notes": "", "drift": "—", "drift.state": "unknown"}
    for name in sources:
        texts |= _chip(Reading(name, State.DOWN))
    return texts


def _chip(reading: Reading[Any]) -> dict[str, str]:
    name = reading.source
    return {
        f"{name}.state": "waiting" if reading.is_waiting else reading.state.value,
        f"{name}.as_of": "" if reading.as_of is None else _iso(reading.as_of),
        f"{name}.error": reading.error or "",
    }


def _warnings(snapshot: Snapshot) -> list[str]:
    unrecorded = [] if snapshot.is_recorded else ["Not recorded: the numbers are live, but not on disk yet."]
    return unrecorded + snapshot.errors


def for_viewers(texts: Mapping[str, str], sources: Iterable[str]) -> dict[str, str]:
    """The same texts for who is not to read what sources and files say of themselves: it names both."""
    states = {name: texts[f"{name}.state"] for name in sources}
    late = [f"{name} is {LATE[state]}." for name, state in states.items() if state in LATE]
    silent = dict.fromkeys((f"{name}.error" for name in states), "")
    return {**texts, **silent, "notes": "", "warning": "\n".join(late)}


def _tone(usd: Decimal) -> str:
    cents = usd.quantize(CENT)
    return "gain" if cents > 0 else "loss" if cents < 0 else "flat"


def _adds_up(terms: Iterable[Decimal], total: Decimal) -> bool:
    """Whether the terms still add up once each is rounded to the cent, as a reader would check."""
    return sum((term.quantize(CENT) for term in terms), ZERO) == total.quantize(CENT)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """The texts that are not what they were."""
    return {name: text for name, text in after.items() if before.get(name) != text}
