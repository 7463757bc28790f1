"""What holds while everything goes wrong: the whole engine, with a real store, through every fault at every source."""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from pnl.bench.figures import rss_bytes, tell
from pnl.config import Settings, load_settings
from pnl.engine import Engine
from pnl.model import PnLModel
from pnl.records import MONEY_FIELDS, ZERO, Reading, Snapshot, State
from pnl.simulator import LivingMarket, Simulator
from pnl.simulator.demo import demo_settings
from pnl.simulator.faults import FAULTS
from pnl.simulator.front import SOURCES, Fault, Front, Harm
from pnl.simulator.nouns import Market, Quote, micros
from pnl.terminal import AsJson, progress_bars

POLL_S = {"kalshi": 0.5, "anthropic": 0.25, "john": 0.25}  # the venue's request limit allows no more than two a second
BREAKER_S = 1.0
HURRY = 40  # a fault and its recovery, 15 s at most, then stay within the 10 minutes that a feed reads back
POLLS_IN_FAULT = 3
POLLS_BETWEEN = 2
MOST_RECOVERY_POLLS = 2
LEAST_PACE = 0.5
MOST_GROWTH_MB = 64
MOST_MORE_FDS = 2  # a thread of the pool may begin to use the cache, and keeps its connection
PATIENCE_S = 30.0
SETTLE_S = 0.3
MOST_LOOKS = 30
ROUNDING = timedelta(milliseconds=1)  # `taken_at` is cut to it
MARKED = (Harm.UNREAD, Harm.SET_ASIDE)
MOST_VIOLATIONS = 50
MEGABYTE = 1 << 20


def chaos(
    *,
    seconds: Annotated[float, typer.Option(min=1, help="How long faults are put in; all take some 3 minutes.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the order of the faults and of what they choose.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Put fault after fault into every source of a running engine, and check what it shows and records.

    The three sources fall sick and get well side by side, each in an order of its own; the same seed gives the same
    order. Meanwhile the simulated market moves 40 times as fast as the real one, and in the end it stands still, so
    that the totals can be held against those of an engine that never saw a fault. Ends with 1 if anything is wrong.
    """
    with TemporaryDirectory(prefix="pnl-chaos-") as folder:
        figures = asyncio.run(_measure(Path(folder), seconds, seed))
    tell("Chaos", figures, as_json=as_json)
    raise typer.Exit(1 if figures["violations"] else 0)


def schedule(source: str, seed: int) -> Iterator[Fault]:
    """Every fault that a source can have, in an order that the seed decides; then again, in another."""
    dice = Random(f"{seed} {source}")  # noqa: S311 (nothing secret is drawn)
    faults = [fault for fault in FAULTS.values() if source in fault.harm]
    while True:
        yield from dice.sample(faults, len(faults))


class HurriedMarket(LivingMarket):
    """A market that catches up: it begins in the past, moves faster than the clock, and stops when it is told."""

    def __init__(self, *, seconds: float) -> None:
        """It reaches the present after `seconds` at the earliest."""
        super().__init__(days=1, fills_per_day=120)
        self._start = datetime.now(UTC)
        self._behind = timedelta(seconds=seconds * (HURRY - 1))
        self._stopped_at: int | None = None

    def instant(self, now: datetime) -> int:
        """The market's own time."""
        if self._stopped_at is not None:
            return self._stopped_at
        return micros(min(now, self._start - self._behind + (now - self._start) * HURRY))

    def stop(self) -> None:
        """Stand still from now on."""
        self._stopped_at = self.instant(datetime.now(UTC))

    def quote(self, now: datetime, market: Market) -> Quote:
        """Never empty: what such a market is worth depends on what was seen of it before, and so on the faults."""
        quote = super().quote(now, market)
        is_empty = quote.bid == 0 and not market.is_settled(self.instant(now))
        return Quote(quote.last, quote.last, quote.last) if is_empty else quote


async def becomes(is_so: Callable[[], bool], changed: asyncio.Event, patience_s: float) -> bool:
    """Wait for something to become so, and look again whenever the event is set; whether it did in so many seconds."""
    try:
        async with asyncio.timeout(patience_s):
            while not is_so():
                changed.clear()
                await changed.wait()
    except TimeoutError:
        return False
    return True


@dataclass
class Illness:
    """The fault that a source has, and how many of its polls have ended in it."""

    fault: Fault
    ended: int = 0
    as_of: datetime | None = None


@dataclass
class Checker:
    """Looks at each snapshot that is shown: is it recorded, do its sums hold, does it hide what is wrong?"""

    model: PnLModel
    requests: Counter[str]
    reader: sqlite3.Connection
    shown: int = 0
    lost_rows: int = 0
    wrong_totals: int = 0
    silent_partials: int = 0
    polls: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    ill: dict[str, Illness] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    _readings: dict[str, Reading[Any]] = field(default_factory=dict)
    _requests: Counter[str] = field(default_factory=Counter)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Begin to watch."""
        self.model.param.watch(self._look, "snapshot")

    async def until(self, is_so: Callable[[], bool]) -> bool:
        """Wait for something to become so; whether it did within half a minute."""
        return await becomes(is_so, self._changed, PATIENCE_S)

    def complain(self, text: str) -> None:
        """Note what must not be."""
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(text)

    @property
    def now(self) -> Snapshot:
        """What is shown."""
        if self.model.snapshot is None:
            raise RuntimeError("nothing has been shown yet")
        snapshot: Snapshot = self.model.snapshot
        return snapshot

    def reading(self, source: str) -> Reading[None]:
        """What the snapshot says of a source."""
        return next(reading for reading in self.now.sources if reading.source == source)

    def is_well(self, source: str) -> bool:
        """Whether a source is shown as fresh and whole."""
        reading = self.reading(source)
        return reading.state is State.FRESH and not reading.refused

    def _look(self, event: Any) -> None:
        snapshot: Snapshot = event.new
        self.shown += 1
        self._count_polls()
        if snapshot.is_recorded and snapshot.is_worth_recording:
            self._check_record(snapshot)
        for reading in snapshot.sources:
            self._check_reading(snapshot, reading)
        self._changed.set()

    def _count_polls(self) -> None:
        for name, reading in self.model.readings.items():
            if reading is self._readings.get(name):
                continue
            self.polls[name] += 1
            self.asked[name] += self.requests[name] > self._requests[name]
            self._requests[name] = self.requests[name]
            if name in self.ill:
                self.ill[name].ended += 1
        self._readings = dict(self.model.readings)

    def _check_record(self, snapshot: Snapshot) -> None:
        columns = ", ".join(f"{name}_micros" for name in MONEY_FIELDS)
        taken_ms = micros(snapshot.taken_at) // 1000
        row = self.reader.execute(f"SELECT {columns} FROM pnl_snapshots WHERE timestamp = ?", (taken_ms,)).fetchone()  # noqa: S608 (our own names)
        if row is None:
            self.lost_rows += 1
            self.complain(f"the snapshot of {snapshot.taken_at} was shown as recorded and is not")
        elif row != tuple(int(getattr(snapshot, name) * 1_000_000) for name in MONEY_FIELDS) or not _adds_up(row):
            self.wrong_totals += 1
            self.complain(f"the snapshot of {snapshot.taken_at} is recorded as {row}")

    def _check_reading(self, snapshot: Snapshot, reading: Reading[None]) -> None:
        if reading.as_of is not None and reading.as_of > snapshot.taken_at + ROUNDING:
            self.complain(f"{reading.source} has a negative age at {snapshot.taken_at}")
        illness = self.ill.get(reading.source)
        if illness is None or illness.ended < POLLS_IN_FAULT or illness.fault.harm[reading.source] not in MARKED:
            return
        what = f"{reading.source} in {illness.fault.name}"
        if snapshot.complete:
            self.silent_partials += 1
            self.complain(f"{what} is shown as complete at {snapshot.taken_at}")
        if illness.fault.harm[reading.source] is Harm.UNREAD:
            illness.as_of = illness.as_of or reading.as_of
            if reading.as_of != illness.as_of:
                self.complain(f"{what} became younger without an answer")


def _adds_up(row: tuple[int, ...]) -> bool:
    money = dict(zip(MONEY_FIELDS, row, strict=True))
    return (
        money["kalshi_pnl"] == money["kalshi_realized"] + money["kalshi_unrealized"] - money["kalshi_fees"]
        and money["total_costs"] == money["billed_costs"] + money["estimated_costs"]
        and money["net_pnl"] == money["kalshi_pnl"] - money["total_costs"] + money["total_revenue"]
    )


@dataclass
class Course:
    """What was done to the sources, and how they took it."""

    injected: Counter[str] = field(default_factory=Counter)
    recoveries: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    well_polls: Counter[str] = field(default_factory=Counter)
    well_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def pace(self) -> float:
        """Polls of a source while it was well, as a part of what its period makes; of the slowest source."""
        return min((self.well_polls[name] * POLL_S[name] / time_s for name, time_s in self.well_s.items()), default=1.0)


@dataclass(frozen=True)
class Ward:
    """Where sources are made sick, watched, and healed."""

    front: Front
    checker: Checker
    course: Course
    until_s: float

    @property
    def is_open(self) -> bool:
        """Whether there is time for another fault."""
        return asyncio.get_running_loop().time() < self.until_s

    async def treat(self, source: str, seed: int) -> None:
        """Put one fault after the other into a source until the time is over."""
        for fault in schedule(source, seed):
            await self._stay_well(source)
            if not self.is_open:
                return
            await self._fall_sick(source, fault)
            await self._get_well(source, fault)

    async def _stay_well(self, source: str) -> None:
        loop, polls = asyncio.get_running_loop(), self.checker.polls[source]
        began = loop.time()
        await self.checker.until(lambda: self.checker.polls[source] - polls >= POLLS_BETWEEN)
        self.course.well_polls[source] += self.checker.polls[source] - polls
        self.course.well_s[source] += loop.time() - began

    async def _fall_sick(self, source: str, fault: Fault) -> None:
        self.course.injected[fault.name] += 1
        await self.front.put(source, fault)
        self.checker.ill[source] = illness = Illness(fault)
        if not await self.checker.until(lambda: illness.ended > POLLS_IN_FAULT):
            self.checker.complain(f"{source} in {fault.name} ended {illness.ended} polls in {PATIENCE_S:g} s")

    async def _get_well(self, source: str, fault: Fault) -> None:
        asked = self.checker.asked[source]
        del self.checker.ill[source]
        await self.front.put(source, None)
        if not await self.checker.until(lambda: self.checker.is_well(source)):
            self.checker.complain(f"{source} was not back {PATIENCE_S:g} s after {fault.name}")
        polls = self.checker.asked[source] - asked
        self.course.recoveries[fault.name].append(polls)
        if polls > MOST_RECOVERY_POLLS:
            self.checker.complain(f"{source} needed {polls} polls after {fault.name}")


async def _measure(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    world = HurriedMarket(seconds=seconds + 2 * PATIENCE_S)
    async with Simulator(world) as simulator, Front(simulator, seed=seed) as front:
        direct = _settings(folder, simulator)
        async with Engine(direct.model_copy(update=front.urls)) as engine:
            reader = engine.resources.enter_context(closing(_reader(direct.data_dir)))
            checker = Checker(engine.model, front.log.requests, reader)
            engine.start()
            figures = await _run(checker, front, seconds, seed)
            world.stop()
            clean = await _read_without_fault(folder / "clean", direct)
            figures["total_difference_usd"] = await _difference(checker, clean)
    if front.strangers:
        checker.complain(f"{len(front.strangers)} requests followed a redirect to another host")
    return {"seed": seed, "seconds": seconds, **figures, "violations": checker.violations}


def _settings(folder: Path, simulator: Simulator) -> Settings:
    polls = {f"{source}_poll_s": poll_s for source, poll_s in POLL_S.items()}
    return demo_settings(load_settings(data_dir=folder, breaker_s=BREAKER_S, **polls), simulator)


def _reader(folder: Path) -> sqlite3.Connection:
    reader = sqlite3.connect(f"file:{folder / 'pnl.db'}?mode=ro", uri=True)
    reader.execute("SELECT count(*) FROM pnl_snapshots").fetchone()  # opens all of its files, which are counted
    return reader


async def _run(checker: Checker, front: Front, seconds: float, seed: int) -> dict[str, Any]:
    await _all_well(checker)
    before = await _quiet(checker, front)
    ward = Ward(front, checker, Course(), asyncio.get_running_loop().time() + seconds)
    telling = asyncio.create_task(_tell_progress(ward, seconds))
    await asyncio.gather(*(ward.treat(source, seed) for source in SOURCES))
    telling.cancel()
    after = await _quiet(checker, front)
    growth = {name: round(after[name] - before[name], 1) for name in before}
    _judge(checker, ward.course, growth)
    return _figures(checker, ward.course, growth)


async def _all_well(checker: Checker) -> None:
    """Wait for a poll of every source, after which everything is whole."""
    if not await checker.until(lambda: set(SOURCES) <= checker.polls.keys() and checker.now.complete):
        checker.complain(f"not everything is well without a fault: {checker.model.snapshot}")


async def _quiet(checker: Checker, front: Front) -> dict[str, float]:
    """What is open while all three doors are closed, so that no connection is: then the doors are opened again."""
    for source in SOURCES:
        await front.put(source, FAULTS["refused"])
    await checker.until(lambda: not any(checker.is_well(source) for source in SOURCES))
    found = await _settled()
    for source in SOURCES:
        await front.put(source, None)
    await _all_well(checker)
    return found


async def _settled() -> dict[str, float]:
    """What is open once that no longer changes: the last connections take a moment to end."""
    found = _resources()
    for _ in range(MOST_LOOKS):
        before = found
        await asyncio.sleep(SETTLE_S)
        found = _resources()
        if found == before:
            break
    return {**found, "rss_growth_mb": rss_bytes() / MEGABYTE}


def _resources() -> dict[str, float]:
    return {"tasks_growth": len(asyncio.all_tasks()), "fds_growth": len(list(Path("/proc/self/fd").iterdir()))}


def _judge(checker: Checker, course: Course, growth: dict[str, float]) -> None:
    if course.pace < LEAST_PACE:
        checker.complain(f"a healthy source was polled at {course.pace:.2f} of its pace")
    if growth["tasks_growth"] > 0 or growth["fds_growth"] > MOST_MORE_FDS:
        checker.complain(f"{growth['tasks_growth']:g} tasks and {growth['fds_growth']:g} files are left over")
    if growth["rss_growth_mb"] > MOST_GROWTH_MB:
        checker.complain(f"{growth['rss_growth_mb']:g} MB more memory than before")


def _figures(checker: Checker, course: Course, growth: dict[str, float]) -> dict[str, Any]:
    recoveries = [polls for all_of_one in course.recoveries.values() for polls in all_of_one]
    return {
        "faults_known": len(FAULTS),
        "faults_injected": course.injected.total(),
        "by_fault": {
            name: {"injected": times, "recovery_polls_max": max(course.recoveries[name], default=0)}
            for name, times in sorted(course.injected.items())
        },
        "snapshots": checker.shown,
        "polls": dict(checker.polls),
        "silent_partials": checker.silent_partials,
        "lost_rows": checker.lost_rows,
        "wrong_totals": checker.wrong_totals,
        "recovery_polls_max": max(recoveries, default=0),
        "recovery_polls_p50": median(recoveries) if recoveries else 0,
        "healthy_pace_min_ratio": round(course.pace, 3),
        **growth,
    }


async def _tell_progress(ward: Ward, seconds: float) -> None:
    with progress_bars() as progress:
        bar = progress.add_task("", total=seconds)
        while True:
            ill = ", ".join(f"{source} {illness.fault.name}" for source, illness in ward.checker.ill.items())
            left_s = max(0.0, ward.until_s - asyncio.get_running_loop().time())
            faults = f"{ward.course.injected.total()} faults; now {ill}"
            progress.update(bar, completed=seconds - left_s, description=faults)
            await asyncio.sleep(0.5)


async def _read_without_fault(folder: Path, settings: Settings) -> Snapshot:
    async with Engine(settings.model_copy(update={"data_dir": folder})) as engine:
        return await engine.sync()


async def _difference(checker: Checker, clean: Snapshot) -> str:
    """The largest difference between what is shown in the end and what an engine reads that never saw a fault."""

    def difference_usd() -> Decimal:
        return max((abs(getattr(checker.now, name) - getattr(clean, name)) for name in MONEY_FIELDS), default=ZERO)

    if not await checker.until(lambda: difference_usd() == 0 and checker.now.complete):
        checker.complain(f"in the end {difference_usd()} USD differ from a clean run")
    return f"{difference_usd():f}"
