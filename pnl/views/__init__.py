"""Panel viewers, one for each panel of the page; each is handed the model and shows itself in a notebook cell too."""

from pnl.views.alerts import AlertsView
from pnl.views.days import DaysView
from pnl.views.fills import FillsView
from pnl.views.health import HealthView
from pnl.views.history import HistoryView
from pnl.views.line import LineView
from pnl.views.notes import NotesView
from pnl.views.positions import PositionsView
from pnl.views.verdict import VerdictView

__all__ = [
    "AlertsView",
    "DaysView",
    "FillsView",
    "HealthView",
    "HistoryView",
    "LineView",
    "NotesView",
    "PositionsView",
    "VerdictView",
]
