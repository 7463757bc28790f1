"""The texts about a period or an instant of the past: its figures beside those of the period before, what was shown."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from itertools import accumulate

from pnl.history.figures import Booked, Drawdowns, Figures
from pnl.history.periods import Period, period
from pnl.records import CENT, Snapshot, length, money
from pnl.stream import fields_of
from pnl.views.panel import Look
from pnl.views.wish import Wish

UNKNOWN = "—"
NAMES = ("net", "trading", "fees", "costs", "revenue", "open", "cost_per_fill")
SOURCE_OF = {"trading": "kalshi", "fees": "kalshi", "open": "kalshi", "costs": "anthropic", "revenue": "john"}
SIGNED = ("net", "trading", "open")
INSTANT = ("net", "trading", "fees", "costs", "revenue", "equals")
SPARKS = ("net", "trading", "fees", "costs", "revenue")
SPARK_POINTS = 60


class PeriodPanel:
    """The figures of the range that is looked at, what they were in the one before, and how they grew day by day."""

    def first(self) -> Mapping[str, str]:
        """All unknown."""
        return period_fields(None, UTC, (), has_before=False) | _sparks(())

    def depends(self, wish: Wish) -> Hashable:
        """The range, and what is filtered."""
        return wish.range, tuple(wish.filters), wish.q

    async def texts(self, look: Look) -> Mapping[str, str]:
        """See `Panel`."""
        chosen = look.wish.postings
        found = await period(look.history, look.range, **chosen)
        days = await look.history.breakdown(look.range.start, look.range.end, by="day", **chosen)
        has_before = look.range.before is not None
        return period_fields(found, look.zone, look.sources, has_before=has_before) | _sparks(days)


class InstantPanel:
    """What was shown at an instant of the past."""

    def first(self) -> Mapping[str, str]:
        """No instant."""
        return instant_fields(None, None, UTC)

    def depends(self, wish: Wish) -> Hashable:
        """The instant."""
        return wish.at

    async def texts(self, look: Look) -> Mapping[str, str]:
        """See `Panel`."""
        moment = parse_instant(look.wish.at, zone=look.zone, now=datetime.now(UTC))
        snapshot = None if moment is None else await look.history.snapshot_at(moment, look.sources)
        return instant_fields(moment, snapshot, look.zone)


def _sparks(days: Sequence[Figures]) -> dict[str, str]:
    """How each figure grew over these days, in US dollars: so many points that a line is smooth."""
    texts = {}
    for name in SPARKS:
        totals = list(accumulate((getattr(day, f"{name}_usd") for day in days), initial=Decimal(0)))
        step = max(1, -(-len(totals) // SPARK_POINTS))
        texts[f"past.{name}.spark"] = " ".join(f"{usd:.2f}" for usd in [*totals[:-1:step], totals[-1]] if days)
    return texts


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
    return texts | _rates(booked) | _drawdown(falls, zone)


def _rates(booked: Booked | None) -> dict[str, str]:
    """How often trades won, and how often they had to."""
    won = None if booked is None else booked.win_rate
    needed = None if booked is None else booked.break_even_win_rate
    texts = {"past.win_rate": share(won), "past.break_even": share(needed)}
    if booked is None or won is None:
        return texts | {"past.win_rate.of": "", "past.win_rate.is": ""}
    is_enough = "" if needed is None else "enough" if won >= needed else "short"
    return texts | {"past.win_rate.of": f"{booked.wins:,} of {booked.closes:,} closes", "past.win_rate.is": is_enough}


def share(ratio: Decimal | None) -> str:
    """A ratio as people read it; a dash if it is not known."""
    return UNKNOWN if ratio is None else f"{ratio:.1%}"


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
        "cost_per_fill": booked.cost_per_fill_usd,
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
    return f"{moment.astimezone(zone):%Y-%m-%d}"


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
    lag = f", and nothing was recorded for {length(age)} after it" if age > timedelta(seconds=90) else ""
    lacks = f" It lacked: {'; '.join(snapshot.missing)}." if snapshot.missing else ""
    return f"Recorded {taken}{lag}.{lacks}"
