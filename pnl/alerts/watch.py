"""Keeps an eye on a model: judges it now and then, remembers over a restart what was told, says what is new."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec
import param

from pnl.alerts.facts import Facts, Rules, facts_of
from pnl.alerts.judge import judge
from pnl.alerts.said import Alert, Alerts, News
from pnl.model import PnLModel

FILE = "alerts.json"

log = logging.getLogger(__name__)


class AlertWatch(param.Parameterized):
    """The rules of one model, watched through `current`; `facts` is what they were last judged by.

    It belongs to the thread of the model's loop.
    """

    current: Alerts = param.ClassSelector(  # type: ignore[assignment]
        default=Alerts(), class_=Alerts, doc="Where every rule stands; changes with each of its texts."
    )

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules
        self.facts: Facts | None = None
        self._path: Path | None = None
        self._kept: object = None

    def recall(self, folder: Path) -> None:
        """Go on with what was told before a restart; what waited for its hold begins to wait anew."""
        self._path = folder / FILE
        try:
            rules = msgspec.json.decode(self._path.read_bytes(), type=tuple[Alert, ...])
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError):
            log.warning("%s cannot be read; what it says of alerts is told anew", FILE)
            return
        self._say(Alerts(tuple(replace(rule, waits_for=None) for rule in rules)))
        self._kept = _to_keep(self.current)

    def look(self, model: PnLModel, now: datetime) -> Sequence[News]:
        """Judge what the model knows now; returns what somebody has to be told."""
        self.facts = facts_of(model, self.rules, now)
        if self.facts is None:
            return ()
        before, after = self.current, judge(self.rules, self.facts, self.current, now)
        try:
            self._say(after)
        except Exception:
            log.exception("whoever watches the alerts broke")  # what is news has to be told all the same
        for alert in after.rules:
            earlier = before.get(alert.name)
            if (earlier is not None and earlier.state is not alert.state) or (earlier is None and alert.is_shown):
                log.warning("alert %s: %s: %s", alert.name, alert.state, alert.text)
        return after.news

    def acknowledge(self, name: str) -> bool:
        """Stop showing a rule until it resolves; False if there is no such rule, or nothing to be seen of it."""
        alert = self.current.get(name)
        if alert is None or not alert.is_shown:
            return False
        self._say(self.current.acknowledged(name))
        return True

    def _say(self, alerts: Alerts) -> None:
        if alerts.rules != self.current.rules:
            self.current = Alerts(alerts.rules)  # the news is told once, by whoever looks

    @property
    def is_to_be_kept(self) -> bool:
        """Whether `keep` has something to write."""
        return self._path is not None and _to_keep(self.current) != self._kept

    def keep(self) -> None:
        """Write down what must not be told again after a restart; whole or not at all, for its owner alone.

        Blocks for the disk.

        Raises:
            OSError: It cannot be written.
        """
        if self._path is None:
            return
        alerts = self.current
        unfinished = self._path.with_suffix(".part")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(alerts.rules))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path)
        self._kept = _to_keep(alerts)


def _to_keep(alerts: Alerts) -> object:
    return [(a.name, a.state, a.was, a.period, a.is_acknowledged) for a in alerts.rules]
