"""The texts about a period or an instant of the past: its figures beside those of the period before, what was shown."""

from collections.abc import Collection
from datetime import UTC, datetime, time, timedelta, tzinfo
from decimal import Decimal

from pnl.history.client import Booked, Drawdowns
from pnl.history.periods import Period
from pnl.history.ranges import Range
from pnl.records import CENT, Snapshot, money
from pnl.stream import fields_of

UNKNOWN = "—"
NAMES = ("net", "trading", "fees", "costs", "revenue", "open")
SOURCE_OF = {"trading": "kalshi", "fees": "kalshi", "open": "kalshi", "costs": "anthropic", "revenue": "john"}
SIGNED = ("net", "trading", "open")
INSTANT = ("net", "trading", "fees", "costs", "revenue", "equals")


def period_fields(period: Period | None, zone: tzinfo, sources: Collection[str], *, has_before: bool) -> dict[str, str]:
    """The texts of a period's figures, by name; a source that is not among `sources` and brought nothing is unknown."""
    booked, earlier, falls = (None,) * 3 if period is None else (period.booked, period.before, period.drawdowns)
    now, before = _figures(booked), _figures(earlier)
    texts = {}
    for name in NAMES:
        is_known = bool(now[name]) or SOURCE_OF.get(name, "") in (*sources, "")
        usd = now[name] if is_known else None
        texts[f"past.{name}"] = money(usd, signed=name in SIGNED)
        texts[f"past.{name}.delta"] = _delta(usd, before[name]) if has_before else ""
    return texts | _drawdown(falls, zone)


def _figures(booked: Booked | None) -> dict[str, Decimal | None]:
    if booked is None:
        return dict.fromkeys(NAMES)
    return {
        "net": booked.net_usd,
        "trading": booked.trading_usd,
        "fees": booked.fees_usd,
        "costs": booked.costs_usd,
        "revenue": booked.revenue_usd,
        "open": booked.open_change_usd,
    }


def _delta(usd: Decimal | None, before: Decimal | None) -> str:
    if usd is None or before is None:
        return UNKNOWN
    cents = (usd - before).quantize(CENT)
    return f"▲ {money(cents)}" if cents > 0 else f"▼ {money(-cents)}" if cents < 0 else "= same"


def _drawdown(drawdowns: Drawdowns | None, zone: tzinfo) -> dict[str, str]:
    if drawdowns is None or drawdowns.high_usd is None:
        return {"past.drawdown": UNKNOWN, "past.drawdown.dates": ""}
    if not drawdowns.falls:
        return {"past.drawdown": money(Decimal(0)), "past.drawdown.dates": "never below its high"}
    deepest = drawdowns.falls[0]
    back = deepest.recovered_at
    end = "not back yet" if back is None else f"back {_when(back, zone)}"
    dates = f"{_when(deepest.high_at, zone)} → {_when(deepest.low_at, zone)}, {end}"
    return {"past.drawdown": money(-deepest.depth_usd), "past.drawdown.dates": dates}


def _when(moment: datetime, zone: tzinfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def range_text(range_: Range, zone: tzinfo) -> str:
    """A range as its first and last day, or instants where it does not begin and end with a day."""
    start = "the first record" if range_.start is None else _edge(range_.start.astimezone(zone))
    end = "now" if range_.end is None else _edge(range_.end.astimezone(zone), is_end=True)
    return start if start == end else f"{start} – {end}"


def _edge(local: datetime, *, is_end: bool = False) -> str:
    if local.time() != time():
        return f"{local:%Y-%m-%d %H:%M}"
    return f"{local.date() - timedelta(days=is_end):%Y-%m-%d}"


def parse_instant(text: str, *, zone: tzinfo, now: datetime) -> datetime | None:
    """An instant as a person types it; None for an empty text.

    Raises:
        ValueError: It is none, or has not come yet; the text is for the person.
    """
    said = text.strip()
    if not said:
        return None
    try:
        moment = datetime.fromisoformat(said)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{said[:60]!r} is no instant; type 2026-07-04 14:00") from None
    if moment > now:
        raise ValueError(f"{said[:60]!r} has not come yet")
    return moment


def instant_fields(moment: datetime | None, snapshot: Snapshot | None, zone: tzinfo) -> dict[str, str]:
    """The texts of the strip about an instant of the past, by name: what was shown then, all empty for no instant."""
    known = dict.fromkeys(INSTANT, "") if snapshot is None else fields_of(snapshot)
    texts = {f"past.at.{name}": known[name] for name in INSTANT}
    if moment is None:
        return texts | {"past.at.is": "", "past.at.moment": "", "past.at.note": ""}
    at = f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S}"
    is_known = "unknown" if snapshot is None else "known"
    return texts | {"past.at.is": is_known, "past.at.moment": at, "past.at.note": _note(moment, snapshot, zone)}


def _note(moment: datetime, snapshot: Snapshot | None, zone: tzinfo) -> str:
    if snapshot is None:
        return "Nothing had been shown by then: the first snapshot is younger."
    taken = f"{snapshot.taken_at.astimezone(zone):%Y-%m-%d %H:%M:%S}"
    age = moment - snapshot.taken_at
    lag = f", and nothing was recorded for {_length(age)} after it" if age > timedelta(seconds=90) else ""
    lacks = f" It lacked: {'; '.join(snapshot.missing)}." if snapshot.missing else ""
    return f"Recorded {taken}{lag}.{lacks}"


def _length(length: timedelta) -> str:
    minutes = int(length.total_seconds()) // 60
    if minutes < 120:  # noqa: PLR2004 - two hours
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"  # noqa: PLR2004 - two days
