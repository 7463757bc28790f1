"""What a person should be told of: the texts of all rules, and a calm banner of those that stand badly."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

import panel as pn
import param
from markupsafe import Markup
from panel.viewable import Viewable, Viewer

from pnl.alerts import Alert, Alerts, AlertState, AlertWatch, Budget
from pnl.alerts.findings import budget_in_words
from pnl.records import money
from pnl.views.verdict import asset, rendered

CELLS = ("name", "state", "since", "title", "text", "largest", "seen")
WORDS = {AlertState.FIRING: "Alert", AlertState.NEAR: "Near the limit", AlertState.NO_DATA: "No data"}
SEEN = "seen"


class AlertTexts:
    """The texts of a watch, made anew when one of its rules says something else."""

    def __init__(self, watch: AlertWatch) -> None:
        self._watch = watch
        self._made_for: tuple[Alerts, Budget | None] | None = None
        self._texts: dict[str, str] = {}

    def newest(self) -> dict[str, str]:
        """Every text by name, see `alert_fields`."""
        facts = self._watch.facts
        now = (self._watch.current, None if facts is None else facts.budget)
        if now != self._made_for:
            self._texts, self._made_for = alert_fields(*now), now
        return self._texts


def alert_fields(alerts: Alerts, budget: Budget | None) -> dict[str, str]:
    """The texts about alerts, by name.

    Returns:
        `alerts`: a line for each rule, its cells, see `CELLS`, separated by tabs: `since` in ISO 8601, `largest` as
        ticker and US dollars with semicolons between, `seen` empty until it is acknowledged.
        `alerts.state`: the worst state of all.
        `budget`: the AI cost of the month in words; `budget.share`: what is spent of 1, empty without a budget;
        `budget.state`: the state of its rule.
    """
    of_budget = alerts.get("cost_budget")
    share = None if budget is None else budget.share
    return {
        "alerts": "\n".join("\t".join(_cells(alert)) for alert in alerts.rules),
        "alerts.state": alerts.worst.value,
        "budget": "—" if budget is None else budget_in_words(budget),
        "budget.share": "" if share is None else f"{share:.4f}",
        "budget.state": AlertState.OFF.value if of_budget is None else of_budget.state.value,
    }


def _cells(alert: Alert) -> Iterator[str]:
    largest = "; ".join(f"{ticker} {money(usd)}" for ticker, usd in alert.largest)
    since = alert.since.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    seen = SEEN if alert.is_acknowledged else ""
    for cell in (alert.name, alert.state.value, since, alert.title, alert.text, largest, seen):
        yield " ".join(cell.split())  # a tab or a line end in a ticker would shift the cells


def alerts_html(fields: Mapping[str, str], zone: tzinfo | None = None, *, is_owner: bool = True) -> Markup:
    """The banner with these texts, all of them escaped; empty while no rule stands badly.

    Args:
        fields: The texts by name, as `alert_fields` gives them.
        zone: For the times; None: this machine's.
        is_owner: Whether who looks may acknowledge one.
    """
    rows = [dict(zip(CELLS, line.split("\t"), strict=True)) for line in fields["alerts"].splitlines()]
    words = {state.value: word for state, word in WORDS.items()}
    shown = [row | {"at": _clock(row["since"], zone)} for row in rows if row["state"] in words and not row["seen"]]
    shown.sort(key=lambda row: list(words).index(row["state"]))
    return rendered("alerts.html", text=fields["alerts"], rows=shown, words=words, is_owner=is_owner)


def _clock(iso: str, zone: tzinfo | None) -> str:
    return f"{datetime.fromisoformat(iso).astimezone(zone):%Y-%m-%d %H:%M}"


class AlertsView(Viewer):
    """The banner in a notebook cell or an app of one's own; follows its watch by itself."""

    watch = param.ClassSelector(class_=AlertWatch, doc="Whose alerts are shown.")

    def __init__(self, watch: AlertWatch, **params: Any) -> None:
        super().__init__(watch=watch, **params)
        zone = watch.rules.zone
        html = pn.bind(lambda alerts: _html(alerts, zone), watch.param.current)
        self._pane = pn.pane.HTML(html, sizing_mode="stretch_width")

    def __panel__(self) -> Viewable:
        return self._pane


def _html(alerts: Alerts, zone: tzinfo | None) -> str:
    style = f"<style>{asset('page.css')}{asset('alerts.css')}</style>"
    return f"{style}{alerts_html(alert_fields(alerts, None), zone)}"
