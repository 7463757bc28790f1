"""The processes of one server under load: which of them serves which page, what they use, and how late each is."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from math import isnan
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import urlsplit

from pnl.bench.figures import cpu_s, named, rss_bytes, spread
from pnl.bench.kill_dashboard import Served, collector
from pnl.bench.load_crowd import Crowd, Joined, Listener, Span, unlike
from pnl.store import FILE

MOST_PROCESSES = 64
MOST_LOOKS = 30
ESTABLISHED = "01"

type Groups = Sequence[Sequence[Listener]]
"""The pages that each process serves: first those of the one that collects, then those of each that follows it."""


@dataclass(frozen=True, slots=True)
class Family:
    """A server that runs, alone or with others behind the same address.

    Attributes:
        server: The one that was started; with several it serves nothing itself and starts those that do.
        count: How many serve pages.
    """

    server: Served
    count: int = 1

    @property
    def serving(self) -> Sequence[int]:
        """The processes that answer requests."""
        pid = self.server.process.pid
        return (pid,) if self.count == 1 else children(pid)

    @property
    def _ours(self) -> Iterable[int]:
        return {self.server.process.pid, *self.serving}

    def cpu_s(self) -> float:
        """Seconds of a core that they used so far, all together."""
        return sum(map(cpu_s, self._ours))

    def rss_bytes(self) -> int:
        """What they hold, all together; what they share counts once for each."""
        return sum(map(rss_bytes, self._ours))

    def pss_bytes(self) -> int:
        """What they hold, all together; what they share counts once."""
        return sum(map(pss_bytes, self._ours))

    def history_rss_bytes(self) -> int:
        """What the processes of the history hold, of which each that serves has one."""
        return sum(rss_bytes(pid) for each in self.serving for pid in children(each))

    def pages_of(self, pages: Iterable[Listener]) -> dict[int, list[Listener]]:
        """The pages of each process that serves; one that is not open any more is nobody's."""
        found: dict[int, list[Listener]] = {pid: [] for pid in self.serving}
        owners = self._owners()
        for page in pages:
            if (pid := owners.get(page.port)) is not None:
                found[pid].append(page)
        return found

    def _owners(self) -> Mapping[int | None, int]:
        """By port of a client, the process that has its connection."""
        sockets = {socket: pid for pid in self.serving for socket in sockets_of(pid)}
        clients = connections(urlsplit(self.server.address).port or 0)
        return {port: sockets[socket] for port, socket in clients.items() if socket in sockets}

    def groups(self, crowd: Crowd, folder: Path) -> Groups:
        """Which process serves which page of a crowd; `folder` holds what is recorded."""
        if self.count == 1:
            return [crowd.listeners]
        of = self.pages_of(crowd.listeners)
        first = of.pop(collector(folder) or 0, [])
        return [first, *of.values()]

    async def all_up(self, crowd: Crowd) -> None:
        """Wait until each of them shows the page, so that none still begins while another is measured."""
        if self.count > 1:
            for page in (await self._fresh(crowd, set(self.serving))).values():
                page.close()

    async def unlike(self, crowd: Crowd, groups: Groups) -> int:
        """How many pages show something else than a fresh page of the same process, at any instant of a while."""
        of = [(self._who_has(group), group) for group in groups if group]
        fresh = await self._fresh(crowd, {pid for pid, _ in of})
        count = 0
        for pid, group in of:
            truth = fresh.get(pid)
            count += len(group) if truth is None else await unlike(group, truth)
        for page in fresh.values():
            page.close()
        return count

    def _who_has(self, group: Iterable[Listener]) -> int:
        return next((pid for pid, pages in self.pages_of(group).items() if pages), 0)

    async def _fresh(self, crowd: Crowd, wanted: AbstractSet[int]) -> dict[int, Listener]:
        """A new page of each process; the system chooses whose it is, so one tries again."""
        found: dict[int, Listener] = {}
        for _ in range(MOST_LOOKS * self.count):
            if wanted <= found.keys() or (page := await crowd.open_one(Joined([]))) is None:
                break
            if found.setdefault(self._who_has([page]), page) is not page:
                page.close()
        return found


def children(pid: int) -> Sequence[int]:
    """The processes that one has started."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it ended meanwhile
            found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


def pss_bytes(pid: int) -> int:
    """Resident memory of a process, where a page that several have counts in parts."""
    rolled = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(rolled.partition("\nPss:")[2].split()[0]) * 1024


def sockets_of(pid: int) -> Iterator[str]:
    """The sockets that a process has open, by their number in the system."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            kind, _, number = str(entry.readlink()).partition(":")
            if kind == "socket":
                yield number.strip("[]")


def connections(port: int) -> dict[int, str]:
    """By the port of its other end, the number of the socket of each connection to a port of this machine."""
    found: dict[int, str] = {}
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):  # a machine without IPv6
            for row in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                words = row.split()
                here, there = (int(words[place].rpartition(":")[2], 16) for place in (1, 2))
                if here == port and words[3] == ESTABLISHED:
                    found[there] = words[9]
    return found


def recorded(folder: Path, span: Span) -> list[int]:
    """When each snapshot was taken that was recorded in a span, in ms since the epoch, oldest first."""
    query = "SELECT timestamp FROM pnl_snapshots WHERE timestamp >= ? AND timestamp < ? ORDER BY 1"
    with closing(sqlite3.connect(f"{(folder / FILE).as_uri()}?mode=ro", uri=True, timeout=60)) as reader:
        return [at_ms for (at_ms,) in reader.execute(query, span)]


def shown(pages: Iterable[Listener], snapshots: Iterable[int]) -> int:
    """How many of some snapshots at least one of these pages had as a point of its own."""
    had = {point.t for page in pages for point in page.received}
    return sum(at_ms in had for at_ms in snapshots)


def lags_ms(page: Listener, snapshots: Iterable[int]) -> Iterator[float]:
    """For each snapshot, from when it was taken until this page showed it or a later one; left out if it never did."""
    later = sorted((point.t, at) for point, at in zip(page.received, page.received_ms, strict=True) if not isnan(at))
    place = 0
    for at_ms in snapshots:
        while place < len(later) and later[place][0] < at_ms:
            place += 1
        if place < len(later):
            yield later[place][1] - at_ms


def lateness(groups: Groups, span: Span, folder: Path) -> dict[str, Any]:
    """How late a snapshot is on a page, by name; with several processes, also of each role by itself.

    The points of a page are local times, and the reporting time zone is UTC.
    """
    snapshots = recorded(folder, span)
    of_all = {"sessions_by_process": [len(group) for group in groups], **_lag("lag_ms", groups, snapshots)}
    if len(groups) == 1:
        return of_all
    roles = {"collector": groups[:1], "followers": groups[1:]}
    of_roles = (_of_role(role, some, span, snapshots) for role, some in roles.items())
    return of_all | {name: value for figures in of_roles for name, value in figures.items()}


def _of_role(role: str, groups: Groups, span: Span, snapshots: Sequence[int]) -> dict[str, Any]:
    shares = [shown(group, snapshots) / max(1, len(snapshots)) for group in groups if group]
    return {
        f"rate_got_{role}": round(_rate(list(chain(*groups)), span), 2),
        f"shown_share_{role}": round(mean(shares), 3) if shares else None,
        **_lag(f"lag_{role}_ms", groups, snapshots),
    }


def _lag(name: str, groups: Groups, snapshots: Sequence[int]) -> dict[str, float]:
    return named(name, spread([lag for page in chain(*groups) for lag in lags_ms(page, snapshots)], digits=1))


def _rate(pages: Sequence[Listener], span: Span) -> float:
    """Updates a second that each page got in a span."""
    count = sum(span[0] <= received_ms < span[1] for page in pages for received_ms in page.received_ms)
    return count * 1000 / (span[1] - span[0]) / max(1, len(pages))
