"""Where each rule stands, and what somebody is told of it."""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from pnl.records import EPOCH
from pnl.sources import TITLES

DAILY_LOSS, COST_BUDGET, DRIFT, DOWN = "daily_loss", "cost_budget", "drift", "down."
NAMES = {DAILY_LOSS: "Daily loss limit", COST_BUDGET: "AI cost budget", DRIFT: "Kalshi's own figures"}


class AlertState(StrEnum):
    """Where a rule stands, the worst last; `off`: it is not set, `near`: close to its limit or on the way beyond it."""

    OFF = "off"
    OK = "ok"
    NEAR = "near"
    NO_DATA = "no_data"
    FIRING = "firing"


BADNESS = tuple(AlertState)
RESTING = (AlertState.OFF, AlertState.OK)


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule and where it stands.

    Attributes:
        name: `daily_loss`, `cost_budget`, `drift` or `down.<source>`.
        state: Where it stands.
        since: Since when it does.
        text: In plain words: what, how much of the limit, what is not known.
        largest: The markets that lost most today, worst first: ticker and US dollars; of the loss limit alone.
        was: The last state in which anything was known: what fired goes on while its data is missing.
        fired_at: When it fired; None unless `was` is firing.
        period: The day or month it was judged for.
        brought: What its source had brought when it fired.
        is_acknowledged: Somebody saw it, and need not see it until it resolves.
        waits_for, waits_since: What it would say if that held for longer.
    """

    name: str
    state: AlertState
    since: datetime
    text: str = ""
    largest: tuple[tuple[str, Decimal], ...] = ()
    was: AlertState = AlertState.OK
    fired_at: datetime | None = None
    period: str = ""
    brought: Decimal | None = None
    is_acknowledged: bool = False
    waits_for: AlertState | None = None
    waits_since: datetime = EPOCH

    @property
    def title(self) -> str:
        """The rule, for people."""
        return NAMES.get(self.name) or f"{source_title(self.name.removeprefix(DOWN))} down"

    @property
    def is_shown(self) -> bool:
        """Whether a person should see it without looking for it."""
        return self.state not in RESTING and not self.is_acknowledged


@dataclass(frozen=True, slots=True)
class News:
    """What somebody is told once: a rule fired, or it resolved."""

    alert: Alert
    is_resolved: bool
    text: str


@dataclass(frozen=True, slots=True)
class Alerts:
    """All rules, the money first, and what has just become news of them."""

    rules: tuple[Alert, ...] = ()
    news: tuple[News, ...] = ()

    @property
    def worst(self) -> AlertState:
        """The state of the rule that stands worst."""
        return max((rule.state for rule in self.rules), key=BADNESS.index, default=AlertState.OFF)

    def get(self, name: str) -> Alert | None:
        """The rule of that name."""
        return next((rule for rule in self.rules if rule.name == name), None)

    def acknowledged(self, name: str) -> "Alerts":
        """The same with one rule not shown until it resolves; nothing changes for a name that there is not."""
        rules = (replace(r, is_acknowledged=True) if r.name == name and r.is_shown else r for r in self.rules)
        return Alerts(tuple(rules))


def source_title(source: str) -> str:
    """What people call a source."""
    return TITLES.get(source, source)
