"""From what was said to what is said: when a rule fires, resolves, or has to say that it knows nothing; pure."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from pnl.alerts.facts import Facts, Rules
from pnl.alerts.findings import Finding, findings
from pnl.alerts.said import RESTING, Alert, Alerts, AlertState, News
from pnl.records import length


def judge(rules: Rules, facts: Facts, before: Alerts, now: datetime) -> Alerts:
    """What to say now.

    Args:
        rules: The limits.
        facts: What is known.
        before: What was said last; `Alerts()` at first.
        now: Aware; a clock that is set back lets what waits begin anew.

    Returns:
        Every rule, and the news. A rule fires once until it resolves, or until its day or month is over. Without its
        data it does neither: it stays what it was, and after the hold it says that it knows nothing.
    """
    alerts: list[Alert] = []
    news: list[News] = []
    for found in findings(rules, facts, before, now):
        earlier = before.get(found.name) or Alert(found.name, AlertState.OK, now)
        alert = _step(_in_period(earlier, found, now), found, now)
        alerts.append(alert)
        news += _news(earlier, alert, found, now)
    return Alerts(tuple(alerts), tuple(news))


def _in_period(alert: Alert, found: Finding, now: datetime) -> Alert:
    """A new day or month begins with nothing said; one of which nothing is known has not begun."""
    if found.state in (None, AlertState.NO_DATA, AlertState.OFF) or found.period == alert.period:
        return alert
    since = alert.since if alert.state is AlertState.OK else now
    return replace(alert, state=AlertState.OK, since=since, was=AlertState.OK, is_acknowledged=False, fired_at=None)


def _step(alert: Alert, found: Finding, now: datetime) -> Alert:
    if found.state is None:
        return replace(alert, text=alert.text or found.text)
    if found.state is alert.state:
        return _become(alert, found, found.state, now)
    began = min(alert.waits_since, now) if alert.waits_for is found.state else now
    if (now - began).total_seconds() < found.hold_s:
        return replace(alert, text=alert.text or found.text, waits_for=found.state, waits_since=began)
    return _become(alert, found, found.state, now)


def _become(alert: Alert, found: Finding, state: AlertState, now: datetime) -> Alert:
    is_known = state is not AlertState.NO_DATA
    was = state if is_known else alert.was
    fires = was is AlertState.FIRING and alert.was is not AlertState.FIRING
    fired_at = (now if fires else alert.fired_at) if was is AlertState.FIRING else None
    since = alert.since if state is alert.state else now
    return replace(
        alert,
        state=state,
        since=fired_at or since if state is AlertState.FIRING else since,
        text=found.text,
        largest=found.largest,
        was=was,
        fired_at=fired_at,
        period=found.period if is_known else alert.period,
        brought=found.brought if fires else alert.brought,
        is_acknowledged=alert.is_acknowledged and not fires and state not in RESTING,
        waits_for=None,
    )


def _news(before: Alert, after: Alert, found: Finding, now: datetime) -> Iterator[News]:
    is_another = before.was is not AlertState.FIRING or before.period != after.period
    if after.was is AlertState.FIRING and is_another:
        yield News(after, is_resolved=False, text=after.text)
    elif before.was is AlertState.FIRING and after.was in (AlertState.OK, AlertState.NEAR):
        lasted = "" if before.fired_at is None else f" It had fired {length(now - before.fired_at)} before."
        yield News(after, is_resolved=True, text=(found.back or found.text) + lasted)
