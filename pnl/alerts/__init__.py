"""What a person is told of by itself: a loss, a cost, a source, a drift that is past its limit for long enough."""

from pnl.alerts.facts import Budget, Facts, Rules, Today, budget_of, facts_of, today_of
from pnl.alerts.judge import judge
from pnl.alerts.notify import Notifier
from pnl.alerts.said import Alert, Alerts, AlertState, News
from pnl.alerts.watch import AlertWatch

__all__ = [
    "Alert",
    "AlertState",
    "AlertWatch",
    "Alerts",
    "Budget",
    "Facts",
    "News",
    "Notifier",
    "Rules",
    "Today",
    "budget_of",
    "facts_of",
    "judge",
    "today_of",
]
