"""From where a feed is read: what is new with some overlap, and again from where a row was set aside.

A row that cannot be believed is asked for again, for it may be put right: at every poll for some minutes, then once an
hour, so that one that stays bad for ever does not make every poll read the whole history.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

ASKED_AT_EVERY_POLL = timedelta(minutes=10)
ASKED_AGAIN_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Window:
    """What one poll reads: from `start` on, None: all of it.

    `covers` says that whatever was set aside before is in it; `is_again` that this is why it is read.
    """

    start: datetime | None
    covers: bool = True
    is_again: bool = False

    def reread(self, kind: str) -> frozenset[str]:
        """The kind of row that is read, if all that was set aside of it is read with it."""
        return frozenset({kind} if self.covers else ())


@dataclass(frozen=True, slots=True)
class _Again:
    start: str
    first: str
    asked: str

    def is_due(self, now: datetime) -> bool:
        is_recent = now - datetime.fromisoformat(self.first) < ASKED_AT_EVERY_POLL
        return is_recent or now - datetime.fromisoformat(self.asked) >= ASKED_AGAIN_EVERY


@dataclass(frozen=True, slots=True)
class Feed:
    """A list of an upstream that is read on from a cursor of this name, minus `overlap`."""

    name: str
    overlap: timedelta

    def window(self, cursors: Mapping[str, str], *, since: datetime | None, now: datetime) -> Window:
        """What the next poll should read; `since` is where history begins for us, None: at its beginning."""
        cursor = cursors.get(self.name)
        start = _instant(cursor) - self.overlap if cursor else since
        again = self._again(cursors)
        if again is None:
            return Window(start)
        if again.is_due(now):
            return Window(datetime.fromisoformat(again.start) if again.start else None, is_again=True)
        return Window(start, covers=False)

    def advance(
        self, cursors: Mapping[str, str], read: Window, instants: Iterable[datetime], *, is_refused: bool, now: datetime
    ) -> dict[str, str]:
        """The cursors after a poll.

        Args:
            cursors: The ones before it.
            read: What it read.
            instants: When its good records happened; one that is dated into the future moves the cursor to now only.
            is_refused: Whether a row was set aside.
            now: The time of the poll.
        """
        known = [_instant(cursors[self.name])] if cursors.get(self.name) else []
        newest = max([*known, *(min(at, now) for at in instants)], default=None)
        found = {} if newest is None else {self.name: newest.isoformat()}
        if read.covers and (is_refused or self._again(cursors)):
            found |= self.ask_again(cursors, read.start, now=now) if is_refused else {self._again_name: ""}
        return found

    def ask_again(self, cursors: Mapping[str, str], start: datetime | None, *, now: datetime) -> dict[str, str]:
        """The cursor that makes later polls read again from `start`."""
        before = self._again(cursors)
        first = before.first if before else now.isoformat()
        again = _Again("" if start is None else start.isoformat(), first, asked=now.isoformat())
        return {self._again_name: json.dumps(asdict(again))}

    @property
    def _again_name(self) -> str:
        return f"{self.name}_again"

    def _again(self, cursors: Mapping[str, str]) -> _Again | None:
        held = cursors.get(self._again_name)
        return _Again(**json.loads(held)) if held else None


def _instant(cursor: str) -> datetime:
    moment = datetime.fromisoformat(cursor)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
