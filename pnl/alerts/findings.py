"""What each rule makes of the facts, with its words: where it stands, how much of the limit, what is not known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import ROUND_FLOOR, Decimal

from pnl.alerts.facts import DEALS, Budget, Facts, Rules, Today, unheard
from pnl.alerts.said import COST_BUDGET, DAILY_LOSS, DOWN, DRIFT, NAMES, Alert, Alerts, AlertState, source_title
from pnl.model import VENUE
from pnl.records import CENT, ZERO, Agreement, Reading, State, money

NEAR_AT = Decimal("0.8")
SLACK = Decimal("0.05")  # a figure that wavers around a limit is told of once
WHOLE_DOLLARS = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says now.

    Attributes:
        name: Of the rule.
        state: Where it would stand; None: nothing can be told, it stays where it is.
        text: In plain words.
        hold_s: For so long it has to say the same before it counts.
        period: The day or month that the limit is of; in the next one it begins anew.
        largest: The markets that lost most, ticker and US dollars.
        brought: What its source has brought so far.
        back: The words for its end, where they are others than `text`.
    """

    name: str
    state: AlertState | None
    text: str
    hold_s: float = 0
    period: str = ""
    largest: tuple[tuple[str, Decimal], ...] = ()
    brought: Decimal | None = None
    back: str = ""


def findings(rules: Rules, facts: Facts, before: Alerts, now: datetime) -> Iterator[Finding]:
    """What every rule says now, the money first."""
    yield _loss(rules, facts, before.get(DAILY_LOSS), now)
    yield _budget(rules, facts, before.get(COST_BUDGET), now)
    for reading in facts.sources:
        yield _down(rules, reading, facts, before.get(DOWN + reading.source), now)
    yield _drift(rules, facts)


def _loss(rules: Rules, facts: Facts, before: Alert | None, now: datetime) -> Finding:
    limit_usd, today = rules.loss_limit_usd, facts.today
    if limit_usd is None or today is None:
        return Finding(DAILY_LOSS, AlertState.OFF, "Set PNL_DAILY_LOSS_LIMIT to be told of a loss.")
    share = max(ZERO, -today.net_usd / limit_usd)
    said = f"Daily loss {percent(share)} of {money(limit_usd)}: {_day_in_words(today)}."
    if silent := unheard(facts.configured):
        return _suspended(DAILY_LOSS, silent, said, rules, now, largest=today.largest)
    text, period = " ".join([said, *_not_known(facts, today)]), today.day.isoformat()
    return Finding(DAILY_LOSS, level(share, _was(before, period)), text, period=period, largest=today.largest)


def _day_in_words(today: Today) -> str:
    trading, costs, deals = money(today.trading_usd, signed=True), money(today.costs_usd), money(today.deals_usd)
    return f"{money(today.net_usd, signed=True)} realized today (trading {trading} − AI {costs} + deals {deals})"


def _not_known(facts: Facts, today: Today) -> Iterator[str]:
    if today.is_estimate:
        yield "Its AI cost is an estimate until it is billed."
    if refused := sum(len(reading.refused) for reading in facts.sources):
        yield f"Rows that were set aside, not in it: {refused}."
    if absent := [source_title(r.source) for r in facts.sources if r.state is State.NOT_CONFIGURED]:
        yield f"Not set up, so not in it: {', '.join(absent)}."


def _budget(rules: Rules, facts: Facts, before: Alert | None, now: datetime) -> Finding:
    budget = facts.budget
    if rules.budget_usd is None:
        return Finding(COST_BUDGET, AlertState.OFF, "Set PNL_COST_BUDGET to be told of AI cost.")
    said = f"AI cost {budget_in_words(budget)}, {budget.month:%B} by UTC days."
    if not facts.of_costs:
        text = "AI cost budget suspended: no source of AI cost is set up."
        return Finding(COST_BUDGET, AlertState.NO_DATA, text, rules.hold_s)
    if silent := unheard(facts.of_costs):
        return _suspended(COST_BUDGET, silent, said, rules, now)
    if budget.estimated_usd:
        said += f" {money(budget.estimated_usd)} of it is an estimate until it is billed."
    period = f"{budget.month:%Y-%m}"
    state = level(budget.share or ZERO, _was(before, period), pace_share=budget.pace_share or ZERO)
    return Finding(COST_BUDGET, state, said, period=period)


def _was(before: Alert | None, period: str) -> AlertState:
    return before.was if before is not None and before.period == period else AlertState.OK


def _suspended(
    name: str,
    silent: Sequence[Reading[None]],
    last_known: str,
    rules: Rules,
    now: datetime,
    *,
    largest: tuple[tuple[str, Decimal], ...] = (),
) -> Finding:
    """A limit on money neither fires nor resolves by what a source said some time ago."""
    sources = " and ".join(f"{source_title(r.source)} {_since(r, rules.zone, now)}" for r in silent)
    text = f"{NAMES[name]} suspended: no data from {sources}. Last known: {last_known}"
    return Finding(name, AlertState.NO_DATA, text, rules.hold_s, largest=largest)


def _down(rules: Rules, reading: Reading[None], facts: Facts, before: Alert | None, now: datetime) -> Finding:
    name, who = DOWN + reading.source, source_title(reading.source)
    if reading.state is State.NOT_CONFIGURED:
        return Finding(name, AlertState.OFF, f"{who}: not set up.")
    brought = facts.brought.get(reading.source)
    if reading.state is State.FRESH:
        then = None if before is None else before.brought
        back = f"{who}: answering again{_came_back(reading.source, brought, then)}."
        return Finding(name, AlertState.OK, f"{who}: answering.", brought=brought, back=back)
    text = f"{who}: down, no answer {_since(reading, rules.zone, now)}. What was read of it until then stays."
    is_down = reading.state is State.DOWN and not reading.is_waiting
    return Finding(name, AlertState.FIRING if is_down else None, text, rules.hold_s, brought=brought)


def _came_back(source: str, now: Decimal | None, then: Decimal | None) -> str:
    """What was read at last, that had come about while the source was down."""
    if now is None or then is None or now == then:
        return "; nothing came about meanwhile"
    more = now - then
    what = {VENUE: f"{more:,f} fills", DEALS: f"{money(more)} of deals"}.get(source, f"{money(more)} of cost")
    return f"; {what} came with its answer"


def _drift(rules: Rules, facts: Facts) -> Finding:
    venue = next((reading for reading in facts.configured if reading.source == VENUE), None)
    if venue is None:
        return Finding(DRIFT, AlertState.OFF, "Kalshi is not set up.")
    if venue.state is not State.FRESH or facts.agreement is Agreement.SETTLING:
        return Finding(DRIFT, None, "Kalshi's own figures are not compared at the moment.")
    if facts.agreement is Agreement.UNKNOWN:
        text = "Kalshi's own figures are not known, so the records are not compared with them."
        return Finding(DRIFT, AlertState.NO_DATA, text, rules.hold_s)
    if facts.agreement is Agreement.DRIFTS:
        text = f"Kalshi's own figures and the records here are {money(facts.drift_usd)} apart; the notes tell where."
        return Finding(DRIFT, AlertState.FIRING, text, rules.hold_s)
    but = ", but for the balance" if facts.agreement is Agreement.UNEXPLAINED else ""
    return Finding(DRIFT, AlertState.OK, f"Kalshi's own figures and the records here agree{but}.")


def level(share: Decimal, was: AlertState, *, pace_share: Decimal = ZERO) -> AlertState:
    """Where a figure stands that is so much of its limit; it has to go back a little further than it came."""
    slack = SLACK if was is AlertState.FIRING else ZERO
    if share >= 1 - slack:
        return AlertState.FIRING
    slack = SLACK if was in (AlertState.NEAR, AlertState.FIRING) else ZERO
    is_near = share >= NEAR_AT - slack or pace_share > 1 - slack
    return AlertState.NEAR if is_near else AlertState.OK


def budget_in_words(budget: Budget) -> str:
    """`62 % of $250.00, on pace for $310`, or what is spent where there is no budget."""
    of = None if budget.limit_usd is None else f"{percent(budget.share)} of {money(budget.limit_usd)}"
    pace = "its pace is known after one day" if budget.pace_usd is None else f"on pace for {_about(budget.pace_usd)}"
    return f"{of or money(budget.spent_usd)}, {pace}"


def percent(share: Decimal | None) -> str:
    """Never more than there is: 100 % is said once it is reached."""
    return "—" if share is None else f"{(share * 100).to_integral_value(ROUND_FLOOR):,f} %"


def _about(usd: Decimal) -> str:
    """In whole dollars, unless they are few: a pace falls a little with every second."""
    return f"${usd:,.0f}" if usd >= WHOLE_DOLLARS else money(usd.quantize(CENT))


def _since(reading: Reading[None], zone: tzinfo, now: datetime) -> str:
    return "yet" if reading.as_of is None else f"since {clock(reading.as_of, zone, now)}"


def clock(moment: datetime, zone: tzinfo, now: datetime) -> str:
    """The time of day in a time zone, with the date if it was another day."""
    local = moment.astimezone(zone)
    is_today = local.date() == now.astimezone(zone).date()
    return f"{local:%H:%M}" if is_today else f"{local:%Y-%m-%d %H:%M}"
