"""A report's file: its figures put into words and pictures, all of it in one page that needs nothing else."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from pnl import __version__
from pnl.history.client import History
from pnl.history.figures import Booked, Fall, Figures, Posting
from pnl.history.ranges import range_text
from pnl.records import ZERO, State
from pnl.report import charts
from pnl.report.facts import Asked, Coverage, Facts, OnStep, gather
from pnl.report.svg import gauge
from pnl.report.tables import MOST_ITEMS, WEEKDAYS, Line, Table, largest, named, table, tree
from pnl.report.words import HIDDEN, UNKNOWN, Words, percent, tone

TITLE = "Net P&L report"
TITLES = {"kalshi": "Kalshi, trading", "anthropic": "Anthropic, AI cost", "john": "Deals, revenue"}
TERMS = (("trading", "", "kalshi"), ("fees", "−", "kalshi"), ("AI", "−", "anthropic"), ("deals", "+", "john"))
SLASHED = re.compile(r"(?<![\w/:])~?(?:/[^\s/:;,'\"()]+)*/([^\s/:;,'\"()]*)")

templates = Environment(
    loader=PackageLoader("pnl.report", "templates"),
    autoescape=select_autoescape(default=True),  # every text may come from outside
    trim_blocks=True,
    lstrip_blocks=True,
)


async def report_html(history: History, asked: Asked, *, on_step: OnStep = lambda _done, _total: None) -> str:
    """The whole file; drawn beside the loop, which others use meanwhile.

    Raises:
        HistoryError: See `History.bars`.
    """
    return await asyncio.to_thread(render, await gather(history, asked, on_step=on_step))


def render(facts: Facts) -> str:
    """The file of these figures: one HTML page without any script, which asks nobody for anything."""
    words = Words(facts.asked.zone, hides=facts.asked.hides)
    known = {"css": _style(), "unknown": UNKNOWN, **_texts(facts, words), **_pictures(facts, words)}
    return templates.get_template("report.html").render(known)


def _texts(facts: Facts, words: Words) -> Mapping[str, Any]:
    """What is said, and the tables."""
    asked = facts.asked
    return {
        "title": words.said(asked.title, 200) or TITLE,
        "hidden": HIDDEN if asked.hides else "",
        "kind": asked.kind,
        "printed": _printed(facts, words),
        "verdict": _verdict(facts, words),
        "missing": [words.said(_without_paths(line), 300) for line in _missing(facts, words)],
        "compared": _compared(facts, words) if asked.range.before else None,
        "rates": _rates(facts, words),
        "high": words.usd(facts.drawdowns.high_usd),
        "high_at": words.at(facts.drawdowns.high_at),
        "falls": [_fall(fall, words) for fall in facts.drawdowns.falls],
        "breakdowns": list(_breakdowns(facts, words)),
        "best": [_trade(row, words) for row in facts.best],
        "worst": [_trade(row, words) for row in facts.worst],
        "deals": _deals(facts, words),
        "coverage": [_covered(each, facts, words) for each in facts.coverage if each.is_known],
    }


def _pictures(facts: Facts, words: Words) -> Mapping[str, Any]:
    """What is drawn, and which of its keys the legends need."""
    unit, spans = charts.spans(facts.parts["day"])
    months, older = charts.calendar(facts.parts["day"], words)
    return {
        "equity": charts.equity(facts.bars, facts.underwater, words),
        "is_rebuilt": bool(facts.bars.rebuilt.any()),
        "is_recorded": not facts.bars.rebuilt.all(),
        "underwater": charts.underwater(facts.bars, facts.underwater, words),
        "unit": unit,
        "stacked": charts.stacked(spans, unit, words),
        "has_estimate": bool(facts.booked.estimated_usd),
        "months": months,
        "older_months": older,
    }


@cache
def _style() -> Markup:
    return Markup(files("pnl.report").joinpath("templates", "report.css").read_text("utf-8"))  # noqa: S704 - our own file


def _without_paths(text: str) -> str:
    """A source's own words without the folders of this machine."""
    return SLASHED.sub(r"\1", text)


def _printed(facts: Facts, words: Words) -> list[tuple[str, str]]:
    """What makes two reports comparable."""
    asked, newest = facts.asked, facts.snapshot
    filters = "; ".join(f"{words.said(by)} = {words.said(name or 'none')}" for by, name in asked.filters)
    before = asked.range.before
    return [
        ("Period", range_text(asked.range, asked.zone)),
        ("Compared with", range_text(before, asked.zone) if before else "nothing: it has no period before it"),
        ("Filters", filters or "none: everything counts"),
        ("Figures as of", UNKNOWN if newest is None else f"{newest.as_of.astimezone(asked.zone):%Y-%m-%d %H:%M:%S}"),
        ("Written", f"{asked.written_at.astimezone(asked.zone):%Y-%m-%d %H:%M:%S}"),
        ("Time zone", f"{asked.zone}"),
        ("Program", f"pnl {__version__}"),
    ]


def _verdict(facts: Facts, words: Words) -> Mapping[str, Any]:
    """The one number, the equation that makes it, and how open P&L moved beside it."""
    booked = facts.booked
    net = None if facts.is_empty else booked.net_usd
    before = None if facts.before is None else facts.before.net_usd
    amounts = (booked.trading_usd, booked.fees_usd, booked.costs_usd, booked.revenue_usd)
    terms = [
        (sign, words.exact(_known(facts, source, usd), signed=not sign), name)
        for (name, sign, source), usd in zip(TERMS, amounts, strict=True)
    ]
    return {
        "net": words.usd(net),
        "tone": tone(net),
        "change": words.change(net, before) if facts.asked.range.before else "",
        "terms": terms,
        "exact": words.exact(net),
        "estimated": words.exact(booked.estimated_usd) if booked.estimated_usd else "",
        "open": words.usd(booked.open_change_usd, signed=True),
        "open_before": words.usd(booked.open_before_usd, signed=True),
        "open_after": words.usd(booked.open_after_usd, signed=True),
        "is_part": bool(facts.asked.filters),
        "is_partial": facts.snapshot is None or not facts.snapshot.complete,
    }


def _known(facts: Facts, source: str, usd: Decimal) -> Decimal | None:
    """Unknown is not zero: what no source tells, or no filter lets through, is a dash."""
    told = any(each.reading.source == source and each.is_known for each in facts.coverage)
    return usd if usd or (told and not facts.asked.filters and not facts.is_empty) else None


def _missing(facts: Facts, words: Words) -> Iterator[str]:
    """What a reader has to know before believing the total, in plain words."""
    if facts.is_empty:
        yield "Nothing is recorded of this period: its figures are not known."
    for each in facts.coverage:
        name = TITLES.get(each.reading.source, each.reading.source)
        if each.reading.state is State.NOT_CONFIGURED and facts.snapshot is not None:
            left = "what it brought before counts" if each.rows else "it is left out of every total"
            yield f"{name}: not set up; {left}."
        start = facts.asked.range.start
        if each.first_at is not None and start is not None and each.first_at > start:
            yield f"{name}: its first row is of {words.at(each.first_at)}; whether anything was before is not known."
    if facts.snapshot is None:
        yield "No snapshot was recorded yet, so it is not known how good the sources' answers are."
    else:
        yield from (*facts.snapshot.errors, *facts.snapshot.missing, *facts.snapshot.notes)
    if not facts.is_steady:
        yield "Something was booked while this was put together: its parts may differ from its total by that."


def _compared(facts: Facts, words: Words) -> list[tuple[str, str, str, str]]:
    """Each term of this period, of the one before it, and the difference."""

    def amounts(booked: Booked | None) -> list[Decimal | None]:
        if booked is None:
            return [None] * 6
        terms = (booked.trading_usd, booked.fees_usd, booked.costs_usd, booked.revenue_usd)
        parts = [_known(facts, source, usd) for (_, _, source), usd in zip(TERMS, terms, strict=True)]
        return [booked.net_usd, *parts, booked.open_change_usd]

    names = ("Net, booked", "Trading", "Fees", "AI", "Deals", "Open P&L, change (not in net)")
    now = [None] * 6 if facts.is_empty else amounts(facts.booked)
    both = zip(names, now, amounts(facts.before), strict=True)
    return [(name, words.usd(usd), words.usd(before), words.change(usd, before)) for name, usd, before in both]


def _rates(facts: Facts, words: Words) -> Mapping[str, Any]:
    """What of the figures is a rate or a count."""
    booked, days = facts.booked, [part for part in facts.parts["day"] if part.name is not None]
    best = max(days, key=lambda part: part.net_usd, default=None)
    worst = min(days, key=lambda part: part.net_usd, default=None)
    actual, needed = booked.win_rate, booked.break_even_win_rate
    label = f"{percent(actual)} of closes won; {percent(needed)} would have left nothing"
    falls = facts.drawdowns.falls
    return {
        "fills": f"{booked.fills:,}",
        "closes": f"{booked.closes:,}",
        "win_rate": percent(actual),
        "break_even": percent(needed),
        "gauge": gauge(_as_float(actual), _as_float(needed), label),
        "is_above_all": needed is not None and needed > 1,
        "cost_per_fill": words.usd(booked.cost_per_fill_usd if booked.costs_usd else None),
        "cost_share": percent(booked.costs_usd / booked.won_usd if booked.won_usd and booked.costs_usd else None),
        "drawdown": words.usd(-falls[0].depth_usd if falls else None if facts.drawdowns.high_usd is None else ZERO),
        "days": f"{sum(part.net_usd > 0 for part in days):,} of {len(days):,}",
        "best": (words.usd(best.net_usd, signed=True), f"{best.name}") if best else (UNKNOWN, ""),
        "worst": (words.usd(worst.net_usd, signed=True), f"{worst.name}") if worst else (UNKNOWN, ""),
    }


def _as_float(share: Decimal | None) -> float | None:
    return None if share is None else float(share)


def _fall(fall: Fall, words: Words) -> Mapping[str, str]:
    return {
        "depth": words.usd(-fall.depth_usd),
        "high": words.usd(fall.high_usd),
        "high_at": words.at(fall.high_at),
        "low": words.usd(fall.low_usd),
        "low_at": words.at(fall.low_at),
        "back": words.at(fall.recovered_at, "not yet"),
    }


def _breakdowns(facts: Facts, words: Words) -> Iterator[tuple[str, str, Table]]:
    """Each with what is to be known about it."""
    parts, total = facts.parts, facts.booked.exact
    yield "By source", "", table("source", named(parts["source"], _titled, "others"), total, words)
    if any(part.name is not None for part in parts["market"]):
        note = "The series that moved most, in each the largest events and markets, and everything else in one line."
        traded = Figures.sum_of(part for part in parts["market"] if part.name is not None)
        yield "By series, event and market", note, table("market", tree(parts["market"]), traded, words)
    costs = [Line(0, part.name, part) for part in parts["item"] if part.name is not None]
    if costs:
        spent = Figures.sum_of(line.figures for line in costs)
        shown = sorted(largest(costs, MOST_ITEMS, "everything else"), key=lambda line: line.figures.net_usd)
        yield "AI cost by model and kind", "Billed and estimated together.", table("item", shown, spent, words)
    days = named(parts["weekday"], lambda number: WEEKDAYS[int(number) - 1], "others")
    yield "By weekday", "", table("day", days, total, words)
    note = "Costs are billed by the day and deals close on one: both stand in the hour in which their day begins."
    hours = named(parts["hour"], lambda hour: f"{int(hour):02}:00", "others")
    yield "By hour", note, table("hour", hours, total, words)


def _titled(name: str) -> str:
    return TITLES.get(name, name)


def _trade(row: Posting, words: Words) -> Mapping[str, str]:
    is_fill = row.kind == "fill"
    return {
        "at": words.at(row.at),
        "market": words.said(row.key),
        "title": words.said(row.text),
        "what": f"bought {row.side.upper()}" if is_fill else f"settled {row.side.upper()}",
        "contracts": words.number(row.contracts),
        "price": words.exact(row.price_usd),
        "amount": words.usd(row.amount_usd, signed=True),
        "fee": words.usd(row.usd["kalshi_fees"]),
        "tone": tone(row.amount_usd),
    }


def _deals(facts: Facts, words: Words) -> Mapping[str, Any] | None:
    """Revenue deal by deal, None where there is none; the rest in one line."""
    found = facts.deals
    if not found.rows:
        return None
    rows = [
        {
            "day": f"{row.at.astimezone(facts.asked.zone):%Y-%m-%d}",
            "deal": words.said(row.key),
            "text": words.said(row.text),
            "status": words.said(row.side),
            "revenue": words.usd(row.usd["total_revenue"]),
            "fee": words.usd(row.usd["billed_costs"]),
        }
        for row in found.rows
    ]
    others, figures = found.count - len(found.rows), found.figures
    revenue, fees = (sum((row.usd[name] for row in found.rows), ZERO) for name in ("total_revenue", "billed_costs"))
    return {
        "rows": rows,
        "others": f"{others:,}" if others else "",
        "others_revenue": words.usd(figures.revenue_usd - revenue),
        "others_fee": words.usd(figures.costs_usd - fees),
        "revenue": words.usd(figures.revenue_usd),
        "fee": words.usd(figures.costs_usd),
    }


def _covered(each: Coverage, facts: Facts, words: Words) -> Mapping[str, str]:
    reading, as_of = each.reading, words.at(each.reading.as_of)
    states = {
        State.FRESH: f"✓ fresh, last answer {as_of}",
        State.STALE: f"◔ stale, last good answer {as_of}",
        State.DOWN: f"✕ down, last good answer {as_of}",
        State.NOT_CONFIGURED: "– not set up",
    }
    return {
        "source": words.said(_titled(reading.source)),
        "state": "– not known" if facts.snapshot is None else states[reading.state],
        "is": reading.state.value,
        "from": words.at(each.first_at),
        "to": words.at(each.last_at),
        "rows": f"{each.rows:,}",
        "rows_in_period": f"{each.rows_in_period:,}",
    }
