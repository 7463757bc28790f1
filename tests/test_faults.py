"""Every fault at every source: each pair is lived through once, and then judged promise by promise."""

import asyncio
import gc
import json
import re
import shutil
import sqlite3
from collections import Counter
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from conftest import Clock

from pnl.bench.chaos import becomes
from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import SourceError
from pnl.records import MONEY_FIELDS, Snapshot, State
from pnl.simulator import LivingMarket, Simulator
from pnl.simulator.demo import demo_settings
from pnl.simulator.faults import FAULTS
from pnl.simulator.front import SOURCES, Answer, Fault, Front, Harm
from pnl.sources.transport import DEADLINE_S, Paced, Transport

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLL_S, WELL_POLL_S = 0.1, 0.25
MORE_POLLS = 2
AT_ONCE = 12
LANES = 2
PATIENCE_S = 20
MARKED = (Harm.UNREAD, Harm.SET_ASIDE)
LONG_DEADLINE_S = 15  # where nothing hangs but the machine
ENDLESS = {"hang", "slow_drip", "busy", "busy_for_a_second"}  # only the deadline ends them
HEAVY = {"huge_body", "gzip_bomb", "deep_nesting"}
COUNTS = ("trade_count", "open_trade_count", "settled_market_count")
PAIRS = [(name, source) for name, fault in FAULTS.items() for source in fault.harm]


def numbers(snapshot):
    """Every number of a snapshot."""
    return tuple(getattr(snapshot, name) for name in (*MONEY_FIELDS, *COUNTS))


class Watch:
    """Sees each snapshot that is shown, and counts the polls that ended, by source, and those that asked anything."""

    def __init__(self, model, log):
        self.model = model
        self.shown = []
        self.polls = Counter()
        self.asked = Counter()
        self._log = log
        self._requests = Counter()
        self._readings = {}
        self._changed = asyncio.Event()
        model.param.watch(self._look, "snapshot")

    def _look(self, event):
        self.shown.append(event.new)
        for name, reading in self.model.readings.items():
            if reading is not self._readings.get(name) and not is_awaited(reading):
                self.polls[name] += 1
                self.asked[name] += self._log.requests[name] > self._requests[name]
                self._requests[name] = self._log.requests[name]
        self._readings = dict(self.model.readings)
        self._changed.set()

    async def until(self, is_so):
        """Wait until a claim holds; whether it did."""
        return await becomes(is_so, self._changed, PATIENCE_S)

    @property
    def now(self):
        """What is shown."""
        return self.model.snapshot

    def reading(self, source):
        """What is shown of a source."""
        return next(reading for reading in self.now.sources if reading.source == source)

    def is_well(self, source):
        """Whether it is shown as fresh and whole; on a busy machine, another may be late at that moment."""
        return self.reading(source).state is State.FRESH and not self.reading(source).refused

    def is_marked(self, source):
        """Whether a poll that ended left a mark on it."""
        return not self.is_well(source) and not is_awaited(self.reading(source))

    @property
    def is_complete(self):
        return self.now is not None and self.now.complete


def is_awaited(reading):
    """Whether a source is stale only because its poll takes long, which on a busy machine it may without any fault."""
    return "still waiting" in (reading.error or "")


@dataclass
class Story:
    """One fault at one source: what was shown before, while it lasted, from when it was marked, and afterwards."""

    source: str
    harm: Harm
    before: Snapshot
    polls_until_marked: int = 0
    during: list[Snapshot] = field(default_factory=list)
    marked: list[Snapshot] = field(default_factory=list)
    others_kept_pace: bool = False
    is_back: bool = False
    polls_until_back: int = 0
    after: Snapshot | None = None
    strangers: list[str] = field(default_factory=list)
    unstored: list[Snapshot] = field(default_factory=list)
    grown_mb: float = 0
    left_behind: tuple[int, int] = (0, 0)


class Stage:
    """A simulator that stands still at one instant, and what was read from it without any fault."""

    def __init__(self, folder):
        # In this world, three markets settled in the last day, and the newest deal is one that counts.
        self.world = LivingMarket(seed=8, days=20, fills_per_day=6)
        self.clock = Clock()
        self.folder = folder
        self.template = folder / "template"
        self.told = {}

    @asynccontextmanager
    async def simulator(self):
        async with Simulator(self.world, now=self.clock, key_type="ed25519", limited=False) as simulator:
            yield simulator

    def settings(self, folder, simulator, **more):
        quick = {"poll_s": POLL_S, "store_synchronous": "NORMAL", "commit_ms": 0, "breaker_failures": 100}
        return demo_settings(load_settings(data_dir=folder, **quick | more), simulator)

    @asynccontextmanager
    async def engine(self, settings):
        """An engine whose sources live at the simulator's instant."""
        async with Engine(settings) as engine:
            kalshi, anthropic = engine.model.sources["kalshi"], engine.model.sources["anthropic"]
            kalshi._signer._clock = self.clock.timestamp
            kalshi._now = anthropic._now = self.clock
            kalshi._transport._deadline_s = LONG_DEADLINE_S
            kalshi._pace = Paced(per_second=1000, burst=1000)  # the simulator refuses nobody
            yield engine

    @asynccontextmanager
    async def front(self, folder, **settings):
        """A front, and the settings that read through it into a folder."""
        async with self.simulator() as simulator, Front(simulator) as front:
            yield front, self.settings(folder, simulator, **settings).model_copy(update=front.urls)

    async def read_without_fault(self):
        async with self.simulator() as simulator, self.engine(self.settings(self.template, simulator)) as engine:
            return await engine.sync()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("faults"))
    stage.clean = await stage.read_without_fault()
    return stage


@pytest.fixture(scope="module")
def clean(stage):
    """What was read without any fault, which every story begins with."""
    return stage.clean


@asynccontextmanager
async def playing(stage, folder, **more):
    """A front, and an engine that reads through it and has read everything once."""
    shutil.copytree(stage.template, folder)
    async with stage.front(folder, **more) as (front, settings), stage.engine(settings) as engine:
        watch = Watch(engine.model, front.log)
        engine.start()
        assert await watch.until(lambda: watch.is_complete), watch.now
        yield front, watch


async def tell(stage, source, names):
    """Live through some faults at one source, one after the other, on one engine."""
    stories, folder = {}, stage.folder / f"{names[0]}-{source}"
    async with playing(stage, folder, poll_s=WELL_POLL_S, **{f"{source}_poll_s": POLL_S}) as (front, watch):
        for name in names:
            stories[name, source] = await live_through(FAULTS[name], source, front, watch)
    rows = recorded(folder)
    unstored = [snapshot for snapshot in watch.shown if snapshot.is_recorded and not is_in(rows, snapshot)]
    for story in stories.values():
        story.unstored = unstored
    return stories


async def live_through(fault, source, front, watch):
    """From health to health."""
    await watch.until(lambda: watch.is_complete)
    story = Story(source, fault.harm[source], watch.now)
    watch.model.sources["kalshi"]._transport._deadline_s = DEADLINE_S if fault.name in ENDLESS else LONG_DEADLINE_S
    reset_peak()
    before_mb = peak_mb()
    await fall_sick(story, fault, front, watch)
    await get_well(story, front, watch)
    story.grown_mb = peak_mb() - before_mb
    return story


async def fall_sick(story, fault, front, watch):
    """Until it is marked, or for two polls where there is nothing to mark, and two polls of the others."""
    shown, polls = len(watch.shown), watch.polls.copy()
    await front.put(story.source, fault)
    await watch.until(lambda: watch.is_marked(story.source) or watch.polls[story.source] - polls[story.source] >= 3)
    story.polls_until_marked, marked = watch.polls[story.source] - polls[story.source], len(watch.shown) - 1
    others = [source for source in SOURCES if source != story.source]
    story.others_kept_pace = await watch.until(lambda: all(watch.polls[o] - polls[o] >= MORE_POLLS for o in others))
    story.during, story.marked = watch.shown[shown:], watch.shown[marked:]
    story.strangers = front.strangers


async def get_well(story, front, watch):
    """Until it is fresh and whole again, and for two polls where there is nothing else to see."""
    asked, polls = watch.asked[story.source], watch.polls[story.source]
    await front.put(story.source, None)
    is_over = (lambda: True) if story.harm in MARKED else (lambda: watch.polls[story.source] - polls >= 3)
    story.is_back = await watch.until(lambda: watch.is_well(story.source) and is_over())
    story.polls_until_back, story.after = watch.asked[story.source] - asked, watch.now


def recorded(folder):
    """The money of each snapshot on disk by its milliseconds."""
    columns = ", ".join(f"{name}_micros" for name in MONEY_FIELDS)
    with closing(sqlite3.connect(folder / "demo" / "pnl.db")) as reader:
        return {at: money for at, *money in reader.execute(f"SELECT timestamp, {columns} FROM pnl_snapshots")}


def is_in(rows, snapshot):
    """Whether a snapshot is among the recorded rows, to the micro-dollar."""
    money = [int(getattr(snapshot, name) * 1_000_000) for name in MONEY_FIELDS]
    return rows.get(round(snapshot.taken_at.timestamp() * 1000)) == money


async def tell_all(stage, names):
    """The stories of some faults by fault and source: six side by side, unless memory is what they are about."""
    left, stories = open_ends(), {}
    lanes = [
        (source, [name for name in names[lane::LANES] if source in FAULTS[name].harm])
        for source in SOURCES
        for lane in range(LANES)
    ]
    telling = [tell(stage, source, some) for source, some in lanes if some]
    for told in [await each for each in telling] if HEAVY & {*names} else await asyncio.gather(*telling):
        stories |= told
    for story in stories.values():
        story.left_behind = tuple(now - then for now, then in zip(open_ends(), left, strict=True))
    return stories


def open_ends():
    """How many tasks and open files there are."""
    return len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir()))


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb():
    """The most memory that was resident since the last reset."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=PAIRS, ids="-".join)
async def story(request, stage):
    """The story of one pair; told together with the next few, since to open an engine takes its time."""
    if request.param not in stage.told:
        stage.told |= await tell_all(stage, next_faults(request, stage.told))
    return stage.told[request.param]


def next_faults(request, told):
    """The fault that is asked for, and the next few; those that are about memory have it for themselves."""
    pairs = [item.callspec.params["story"] for item in request.session.items if "story" in item.fixturenames]
    untold = dict.fromkeys(name for name, source in pairs if (name, source) not in told)
    wanted = request.param[0]
    return [wanted, *(name for name in untold if name != wanted and (name in HEAVY) == (wanted in HEAVY))][:AT_ONCE]


async def test_p11_one_sick_source_leaves_the_others_their_pace(story):
    """The healthy ones are polled on while the sick one is in its fault."""
    assert story.others_kept_pace


async def test_p8_the_sick_source_is_marked_within_one_poll(story):
    """Stale or down, with what is wrong; rows that were set aside are named. One poll may have been under way."""
    reading = next(reading for reading in story.marked[-1].sources if reading.source == story.source)

    assert story.polls_until_marked <= 2 or story.harm not in MARKED
    if story.harm is Harm.UNREAD:
        assert reading.state in (State.STALE, State.DOWN)
        assert reading.error
        assert not is_awaited(reading)
    else:
        assert reading.state is State.FRESH or is_awaited(reading)
    assert story.marked[-1].missing or story.harm is not Harm.SET_ASIDE


async def test_p7_what_was_shown_stays_and_never_turns_to_zero(story):
    """A failed answer, an empty one or a bad row changes no number; a source that is believed changes some."""
    shown = {numbers(snapshot) for snapshot in story.during}

    assert (shown == {numbers(story.before)}) == (story.harm is not Harm.BELIEVED)


async def test_p15_no_total_silently_lacks_a_part(story):
    """From the mark on, no snapshot calls itself complete."""
    if story.harm in MARKED:
        assert not any(snapshot.complete for snapshot in story.marked)


async def test_p15_what_was_shown_as_recorded_is_recorded(story):
    """To the micro-dollar, whatever went on."""
    assert story.unstored == []


async def test_p9_it_is_back_within_two_polls(story):
    """One that was under way when the fault ended, and a good one."""
    assert story.is_back
    assert story.polls_until_back <= 2 or story.harm not in MARKED


async def test_p6_in_the_end_the_numbers_are_those_of_a_clean_run(story, clean):
    """To the micro-dollar, and the same number of trades."""
    assert numbers(story.after) == numbers(clean)


async def test_p10_memory_is_bounded_and_nothing_is_left_behind(story):
    """No more than 64 MB, whatever an upstream sends; no task, no file, no connection."""
    assert story.grown_mb <= 64
    assert story.left_behind == (0, 0)


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


async def big_page(exchange):
    await exchange.answer(Answer(b"<html>" + b"x" * 7_000_000))


@pytest.mark.parametrize("act", [FAULTS["huge_body"].act, big_page], ids=["too large", "no JSON"])
@pytest.mark.usefixtures("no_collector")
async def test_p10_a_failure_keeps_nothing_of_what_it_read(stage, act):
    """A failure's text is kept, the body that it is about is not; not even until the garbage is collected."""
    fault = Fault("large", "It answers megabytes.", act, {"john": Harm.UNREAD})
    async with stage.simulator() as simulator, Front(simulator) as front, Transport(breaker_failures=100) as transport:
        await front.put("john", fault)
        reset_peak()
        before_mb = peak_mb()
        for _ in range(20):
            with pytest.raises(SourceError):
                await transport.get(front.john_url, source="john", headers={})

    assert peak_mb() - before_mb <= 64


async def test_s4_nothing_follows_a_redirect_to_another_host(story):
    """Keys travel in headers, and a redirect would carry them away."""
    assert story.strangers == []


@pytest.mark.parametrize("source", SOURCES)
async def test_p9_a_source_that_fails_is_left_alone(stage, clean, source):
    """Not one request in its rest, while the others are polled on; it stays marked."""
    folder = stage.folder / f"resting-{source}"
    async with playing(stage, folder, breaker_failures=1, breaker_s=3600) as (front, watch):
        await front.put(source, FAULTS["server_error"])
        assert await watch.until(lambda: any("not asked until" in error for error in watch.now.errors))
        requests, polls = front.log.requests[source], watch.polls.copy()
        assert await watch.until(lambda: all(watch.polls[each] - polls[each] >= MORE_POLLS for each in SOURCES))
        resting = watch.now

    assert front.log.requests[source] == requests
    assert not resting.complete
    assert numbers(resting) == numbers(clean)


@pytest.mark.parametrize("source", SOURCES)
async def test_p9_a_source_that_rested_is_back_with_its_first_answer(stage, source):
    """One probe after the rest."""
    folder = stage.folder / f"rested-{source}"
    async with playing(stage, folder, breaker_failures=1, breaker_s=1) as (front, watch):
        await front.put(source, FAULTS["refused"])
        assert await watch.until(lambda: any("not asked until" in error for error in watch.now.errors))
        asked = watch.asked[source]
        await front.put(source, None)
        assert await watch.until(lambda: watch.is_well(source))

        assert watch.asked[source] - asked <= 2


PARTS = {"page_twice", "empty_page_between", "empty_list", "ends_early", "rows_twice", "out_of_order", "null_row"}
PARTS |= {"cursor_repeats", "cursor_loops", "cursor_lost", "truncated_json", "changed_money", "negative_money"}


@pytest.mark.parametrize("name", sorted(PARTS))
async def test_p6_a_first_sync_in_a_fault_ends_like_a_clean_one(stage, clean, name):
    """The history that a fault kept back, or changed, is read once it is over; until then it is known to be missing."""
    fault = FAULTS[name]
    async with stage.front(stage.folder / f"first-{name}") as (front, settings), stage.engine(settings) as engine:
        for source in fault.harm:
            await front.put(source, fault)
        first = await engine.sync()
        for source in fault.harm:
            await front.put(source, None)
        second = await engine.sync()

    assert not (first.complete and {*fault.harm.values()} & {*MARKED})
    assert numbers(second) == numbers(clean)
    assert second.complete


async def test_p6_duplicates_and_replays_over_restarts_change_nothing(stage, clean):
    """Neither a number nor a row."""
    folder, counts = stage.folder / "restarts", []
    async with stage.front(folder) as (front, settings):
        for name in ("page_twice", "rows_twice", "out_of_order", "page_twice"):
            for source in SOURCES:
                await front.put(source, FAULTS[name])
            async with stage.engine(settings) as engine:
                assert numbers(await engine.sync()) == numbers(clean)
            counts.append(rows_in(folder))

    assert counts == [counts[0]] * 4


def rows_in(folder):
    """How many rows each table of records has."""
    tables = ("kalshi_trades", "kalshi_settlements", "kalshi_marks", "anthropic_costs", "john_revenue")
    with closing(sqlite3.connect(folder / "demo" / "pnl.db")) as reader:
        return [reader.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables]


def flip(page):
    """The newest market ended the other way; returns what that changes."""
    row = page["settlements"][0]
    net = Decimal(row["yes_count_fp"]) - Decimal(row["no_count_fp"])
    was_yes = row["market_result"] == "yes"
    paid = max(-net, 0) if was_yes else max(net, 0)
    row |= {"market_result": "no" if was_yes else "yes", "value": 0 if was_yes else 100, "revenue": int(paid * 100)}
    return {"kalshi_realized": -net if was_yes else net}


def revise(page):
    """The last day costs a dollar more than was billed."""
    line = next(bucket["results"][0] for bucket in reversed(page["data"]) if bucket["results"])
    line["amount"] = str(Decimal(line["amount"]) + 100)
    return {"billed_costs": Decimal(1)}


def refund(page):
    """The newest deal is refunded a second after it was last changed."""
    row = max(page["data"], key=lambda row: row["updated_at"])
    later = datetime.fromisoformat(row["updated_at"]) + timedelta(seconds=1)
    row |= {"status": "refunded", "updated_at": later.isoformat()}
    return {"total_revenue": -Decimal(row["amount"])}


CORRECTIONS = {
    "/trade-api/v2/portfolio/settlements": ("kalshi", flip),
    "/v1/organizations/cost_report": ("anthropic", revise),
    "/deals": ("john", refund),
}


@pytest.mark.parametrize("path", CORRECTIONS, ids=[source for source, _ in CORRECTIONS.values()])
async def test_p7_a_correction_replaces_the_old_value_and_not_what_was_recorded(stage, clean, path):
    """A settlement that changes, a bill that is revised, a deal that is refunded: new from now on, and by that much."""
    source, correct = CORRECTIONS[path]
    expected = {}

    async def act(exchange):
        answer = await exchange.good()
        if exchange.path == path:
            page = json.loads(answer.body)
            expected.update(correct(page))
            answer = replace(answer, body=json.dumps(page).encode())
        await exchange.answer(answer)

    folder = stage.folder / f"corrected-{source}"
    async with stage.front(folder) as (front, settings):
        async with stage.engine(settings) as engine:
            before = await engine.sync()
        rows = recorded(folder)
        await front.put(source, Fault("correction", "It corrects itself.", act, {source: Harm.BELIEVED}))
        async with stage.engine(settings) as engine:
            after = await engine.sync()
        async with stage.engine(settings) as engine:
            again = engine.model.snapshot

    changes = {name: getattr(after, name) - getattr(before, name) for name in expected}
    assert changes == expected
    assert all(changes.values())
    assert numbers(before) == numbers(clean)
    assert numbers(again) == numbers(after)
    assert rows.items() <= recorded(folder).items()


@pytest.mark.parametrize("name", ["changed_money", "empty_list"])
async def test_p7_the_venue_s_own_figures_show_what_its_lists_hide(stage, name):
    """Its positions and fees are held against the records: a difference that stays is told, and ends with the fault."""
    async with playing(stage, stage.folder / f"drift-{name}") as (front, watch):
        before = watch.now.notes
        await front.put("kalshi", FAULTS[name])
        assert await watch.until(lambda: watch.now.notes != before)
        told = watch.now.notes
        await front.put("kalshi", None)
        assert await watch.until(lambda: watch.now.notes == before)

    assert any("Kalshi" in note for note in told)


async def test_a_fault_says_in_one_sentence_what_goes_wrong():
    """Whoever reads the list of faults needs no other text."""
    assert [name for name, fault in FAULTS.items() if not re.fullmatch(r"[A-Z][^\n.]*\.", fault.says)] == []


@pytest.mark.parametrize("name", ["truncated_json", "out_of_order", "script_in_titles"])
async def test_the_same_seed_goes_wrong_in_the_same_way(stage, name):
    """A failure can be looked at again."""
    bodies = {}
    async with stage.simulator() as simulator, aiohttp.ClientSession() as session:
        for seed in (1, 1, 2):
            async with Front(simulator, seed=seed) as front:
                await front.put("john", FAULTS[name])
                headers = {"Authorization": f"Bearer {simulator.john_token}"}
                async with session.get(front.john_url, headers=headers) as answer:
                    bodies.setdefault(seed, set()).add(await answer.read())

    assert [len(found) for found in bodies.values()] == [1, 1]
    assert bodies[1] != bodies[2]


async def test_a_fault_that_a_source_cannot_have_is_refused(stage):
    """Named, so that a schedule cannot run empty."""
    async with stage.simulator() as simulator, Front(simulator) as front:
        with pytest.raises(ValueError, match="clock_off is no fault that john can have"):
            await front.put("john", FAULTS["clock_off"])
