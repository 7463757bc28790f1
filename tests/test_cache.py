"""The cache as its callers see it: what one call answers, who fetches, and what a drop reaches."""

import asyncio
import logging
from collections import OrderedDict
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnl.cache import CURRENT, KEPT_S, Cache, Cached, Filled, kept_s, minute_key
from pnl.cache.memory import Entry, Memory
from pnl.errors import SourceError

DOWN = SourceError("the venue is down")


class Source:
    """Answers with what it is given, in turn, and counts how often it was asked; an exception is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def fetch(self):
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class SlowSource(Source):
    """Answers only once it is told to."""

    def __init__(self, *answers):
        super().__init__(*answers)
        self.started, self.may_answer = asyncio.Event(), asyncio.Event()

    async def fetch(self):
        self.started.set()
        await self.may_answer.wait()
        return await super().fetch()


@pytest.fixture
async def cache(clock):
    """Memory over a store, without a disk."""
    async with Cache(None, clock=clock.timestamp, wall=clock.timestamp) as cache:
        yield cache


@pytest.fixture
def make(clock, folder):
    """A cache with a disk."""

    def make(**settings):
        return Cache(folder, clock=clock.timestamp, wall=clock.timestamp, **settings)

    return make


async def test_a_second_question_is_answered_from_memory(cache):
    """One fetch serves all who ask inside the TTL."""
    source = Source(b"1")

    first = await cache.get("key", source.fetch, ttl_s=10)
    second = await cache.get("key", source.fetch, ttl_s=10)

    assert first == Cached(b"1", "fresh", "store", 0.0)
    assert second == Cached(b"1", "fresh", "memory", 0.0)
    assert source.asked == 1


async def test_memory_says_how_old_its_answer_is(cache, clock):
    """An age is counted from when the value was fetched."""
    cache.put("key", b"1", 10)
    clock.advance(milliseconds=200)

    assert cache.peek("key").age_s == pytest.approx(0.2)


async def test_memory_answers_for_its_own_ttl_only(cache, clock):
    """After it, the next level is asked, though the value's own TTL is longer."""
    source = Source(b"new")
    cache.put("key", b"old", 10)
    clock.advance(milliseconds=301)

    assert (await cache.get("key", source.fetch, ttl_s=10)).value == b"new"


async def test_disk_answers_after_memory_and_fills_it(make, clock):
    """The levels are asked in their order, and the one above is filled from the one below."""
    async with make() as cache:
        cache.put("key", b"1", 10)
        clock.advance(seconds=1)

        first, second = cache.peek("key"), cache.peek("key")

    assert (first.level, second.level) == ("disk", "memory")
    assert first.age_s == second.age_s == pytest.approx(1, abs=0.002)


async def test_a_value_past_its_ttl_is_fetched_anew(make, clock):
    """Neither level answers with a value that is not fresh."""
    source = Source(b"new")
    async with make() as cache:
        cache.put("key", b"old", 10)
        clock.advance(seconds=10.1)

        found = await cache.get("key", source.fetch, ttl_s=10)

    assert found == Cached(b"new", "fresh", "store", 0.0)


async def test_a_ttl_of_zero_is_never_fresh(cache):
    """Such a value is fetched each time, and kept for when that fails."""
    source = Source(b"1", b"2", DOWN)

    found = [(await cache.get("key", source.fetch, ttl_s=0)).value for _ in range(3)]

    assert found == [b"1", b"2", b"2"]


async def test_the_last_value_is_served_while_the_source_is_down(make, clock):
    """Stale-if-error: a value that is still kept beats a failure, says its age, and carries what went wrong."""
    async with make() as cache:
        cache.put("key", b"1", 10)
        clock.advance(seconds=60)

        found = await cache.get("key", Source(DOWN).fetch, ttl_s=10)

        assert found == Cached(b"1", "stale", "memory", 60.0, DOWN)
        assert cache.stats.memory.stale == 1
        assert cache.stats.store.errors == 1


async def test_a_stale_value_comes_from_disk_when_memory_has_lost_it(make, clock):
    """An earlier run's last value stands in too."""
    async with make() as cache:
        cache.put("key", b"1", 10)
    clock.advance(seconds=60)

    async with make() as cache:
        found = await cache.get("key", Source(DOWN).fetch, ttl_s=10)

    assert (found.value, found.state, found.level) == (b"1", "stale", "disk")
    assert found.age_s == pytest.approx(60, abs=0.002)


@pytest.mark.parametrize(("stale_s", "state"), [(51, "stale"), (49, "missing")])
async def test_a_caller_limits_how_stale_a_value_may_be(cache, clock, stale_s, state):
    """`stale_s` counts from the end of the TTL."""
    cache.put("key", b"1", 10)
    clock.advance(seconds=60)

    assert (await cache.get("key", Source(DOWN).fetch, ttl_s=10, stale_s=stale_s)).state == state


@pytest.mark.parametrize("key", [CURRENT, minute_key(0), "history:day", "kalshi:fills", "john:deals", "other"])
async def test_no_value_outlives_what_its_kind_is_kept(make, clock, key):
    """From 5 to 30 minutes, by the key's kind; it limits the TTL and stale values alike, on every level."""
    assert 300 <= kept_s(key) <= 1800

    async with make() as cache:
        cache.put(key, b"1", 1e6)
        clock.advance(seconds=kept_s(key) - 1)
        assert cache.peek(key).level == "disk"
        clock.advance(seconds=2)

        assert (await cache.get(key, Source(DOWN).fetch, ttl_s=1e6)).state == "missing"


def test_no_kind_of_key_hides_another():
    """The table is read from the top; a beginning of another's beginning would win."""
    starts = list(KEPT_S)

    assert not [(one, two) for one in starts for two in starts if one != two and two.startswith(one)]


async def test_a_failure_without_an_older_value_is_missing(cache):
    """The caller sees what went wrong, and nothing is raised."""
    found = await cache.get("key", Source(DOWN).fetch, ttl_s=10)

    assert found == Cached(None, "missing", "store", 0.0, DOWN)


async def test_what_the_store_has_not_is_missing_and_forgotten(make, clock):
    """None from the fetch ends an older value, which must not come back as stale."""
    async with make() as cache:
        cache.put("key", b"1", 10)
        clock.advance(seconds=11)

        none = await cache.get("key", Source(None).fetch, ttl_s=10)
        after = await cache.get("key", Source(DOWN).fetch, ttl_s=10)

    assert none == Cached(None, "missing", "store", 0.0)
    assert after.state == "missing"


async def test_a_mistake_in_a_fetch_is_raised(cache):
    """Only the world's failures become an answer."""
    with pytest.raises(ZeroDivisionError):
        await cache.get("key", Source(ZeroDivisionError()).fetch, ttl_s=10)

    assert (await cache.get("key", Source(b"1").fetch, ttl_s=10)).value == b"1"


@pytest.mark.parametrize("value", ["text", 1, bytearray(b"1"), object()])
async def test_only_bytes_are_kept(cache, value):
    """Anything else would have to be pickled."""
    with pytest.raises(TypeError, match="keeps bytes"):
        cache.put("key", value, 10)
    with pytest.raises(TypeError, match="keeps bytes"):
        await cache.get("key", Source(value).fetch, ttl_s=10)


@pytest.mark.parametrize("ttl_s", [-1, float("nan")])
async def test_a_ttl_is_a_number_from_0_on(cache, ttl_s):
    """The error names the key."""
    with pytest.raises(ValueError, match="ttl_s of key"):
        cache.put("key", b"1", ttl_s)


@pytest.mark.parametrize("setting", [{"entries": 0}, {"disk_entries": 0}, {"ttl_s": 0}, {"ttl_s": float("nan")}])
def test_a_cache_without_room_or_time_is_refused(setting):
    """Such a setting is a mistake, not a wish."""
    with pytest.raises(ValueError, match="room for at least one entry"):
        Cache(None, **setting)


# Single-flight


async def test_a_hundred_who_miss_together_share_one_fetch(cache):
    """Single-flight: one is asked for all of them."""
    source = SlowSource(b"1")
    asking = [asyncio.create_task(cache.get("key", source.fetch, ttl_s=10)) for _ in range(100)]
    await source.started.wait()
    source.may_answer.set()

    found = await asyncio.gather(*asking)

    assert {one.value for one in found} == {b"1"}
    assert source.asked == 1


async def test_who_joins_a_fetch_does_not_ask_the_disk_again(make):
    """It was asked when the fetch began, and each look at it takes the event loop's time."""
    source = SlowSource(b"1")
    async with make() as cache:
        asking = [asyncio.create_task(cache.get("key", source.fetch, ttl_s=10)) for _ in range(100)]
        await source.started.wait()
        source.may_answer.set()
        await asyncio.gather(*asking)

        assert (cache.stats.memory.misses, cache.stats.disk.misses) == (100, 1)


async def test_keys_are_fetched_side_by_side(cache):
    """A slow fetch holds up nobody who asks for something else."""
    slow = SlowSource(b"1")
    waiting = asyncio.create_task(cache.get("slow", slow.fetch, ttl_s=10))
    await slow.started.wait()

    assert (await cache.get("fast", Source(b"2").fetch, ttl_s=10)).value == b"2"

    slow.may_answer.set()
    assert (await waiting).value == b"1"


async def test_one_who_gives_up_leaves_the_others_their_answer(cache):
    """A fetch belongs to all who wait for it."""
    source = SlowSource(b"1")
    first, second = (asyncio.create_task(cache.get("key", source.fetch, ttl_s=10)) for _ in range(2))
    await source.started.wait()
    first.cancel()
    source.may_answer.set()

    assert (await second).value == b"1"
    assert first.cancelled()


async def test_a_fetch_that_nobody_waits_for_is_finished_at_the_end(clock):
    """Leaving the block waits for it, and its answer is kept as any other."""
    source = SlowSource(b"1")
    async with Cache(None, clock=clock.timestamp) as cache:
        waiting = asyncio.create_task(cache.get("key", source.fetch, ttl_s=10))
        await source.started.wait()
        waiting.cancel()
        source.may_answer.set()

    assert cache.peek("key").value == b"1"


async def test_a_failure_is_told_to_all_who_wait(cache):
    """And the next one asks again."""
    source = SlowSource(DOWN, b"1")
    source.may_answer.set()

    together = await asyncio.gather(*(cache.get("key", source.fetch, ttl_s=10) for _ in range(3)))
    after = await cache.get("key", source.fetch, ttl_s=10)

    assert [one.error for one in together] == [DOWN] * 3
    assert after.value == b"1"
    assert source.asked == 2


async def test_an_answer_from_before_a_drop_is_not_kept(make):
    """Who asked before the drop gets it; who asks after it starts a fetch of their own beside the old one."""
    before, after = SlowSource(b"old"), Source(b"new")
    async with make() as cache:
        early = asyncio.create_task(cache.get("key", before.fetch, ttl_s=10))
        await before.started.wait()
        cache.drop("key")

        late = await cache.get("key", after.fetch, ttl_s=10)
        before.may_answer.set()

        assert (await early).value == b"old"
        assert late.value == b"new"
        assert cache.peek("key").value == b"new"


async def test_an_answer_from_before_a_drop_is_not_kept_when_nobody_asks_again(make):
    """The key stays dropped on every level."""
    source = SlowSource(b"old")
    async with make() as cache:
        early = asyncio.create_task(cache.get("key", source.fetch, ttl_s=10))
        await source.started.wait()
        cache.drop("key")
        source.may_answer.set()
        await early

        assert cache.peek("key") is None
    async with make() as cache:
        assert cache.peek("key") is None


async def test_a_put_overrules_a_fetch_under_way(cache):
    """What was fetched may be from before what was put; even its None or its failure changes nothing."""
    for answer in (b"old", None, DOWN):
        source = SlowSource(answer)
        early = asyncio.create_task(cache.get("key", source.fetch, ttl_s=10))
        await source.started.wait()
        cache.put("key", b"new", 10)
        source.may_answer.set()
        await early

        assert cache.peek("key").value == b"new"
        cache.drop("key")


async def test_a_dropped_value_does_not_come_back_as_stale(make):
    """A drop during the fetch leaves nothing to fall back on."""
    source = SlowSource(DOWN)
    async with make() as cache:
        cache.put("key", b"old", 0)
        waiting = asyncio.create_task(cache.get("key", source.fetch, ttl_s=10))
        await source.started.wait()
        cache.drop("key")
        source.may_answer.set()

        assert (await waiting).state == "missing"


# Invalidation

AT = datetime(2026, 11, 22, 9, 30, 59, 999_000, tzinfo=UTC)
MINUTE_MS = int(AT.replace(second=0, microsecond=0).timestamp()) * 1000


async def test_a_fill_drops_the_snapshot_and_ten_minutes(make):
    """The minute of the fill and the nine before it; what lies outside stays."""
    minutes = [minute_key(MINUTE_MS + step * 60_000) for step in range(-11, 2)]
    async with make() as cache:
        for key in (CURRENT, "history:day", *minutes):
            cache.put(key, b"1", 60)

        cache.on_fill(AT)
        left = {key for key in (CURRENT, "history:day", *minutes) if cache.peek(key)}

        assert left == {"history:day", minutes[0], minutes[1], minutes[-1]}


async def test_a_fill_in_another_time_zone_is_the_same_minute(cache):
    """Keys are counted in UTC."""
    heard = []
    cache.subscribe(heard.append)

    cache.on_fill(AT)
    cache.on_fill(AT.astimezone(tz=None))

    assert heard[0].keys == heard[1].keys
    assert heard[0].keys[:2] == (CURRENT, f"pnl:1m:{MINUTE_MS}")


async def test_a_fill_without_a_time_zone_is_refused(cache):
    """It could be any hour."""
    with pytest.raises(ValueError, match="time zone"):
        cache.on_fill(AT.replace(tzinfo=None))


async def test_a_cost_drops_the_snapshot_alone(cache):
    """Costs are by the day: no minute is drawn from them."""
    keys = (CURRENT, minute_key(MINUTE_MS), "history:day")
    for key in keys:
        cache.put(key, b"1", 60)

    cache.on_cost()

    assert [cache.peek(key) is None for key in keys] == [True, False, False]


async def test_a_warmed_snapshot_is_fresh_for_thirty_seconds(make, clock):
    """It is put before anybody asks."""
    async with make() as cache:
        cache.warm(b"snapshot")
        clock.advance(seconds=29)
        assert cache.peek(CURRENT).value == b"snapshot"

        clock.advance(seconds=2)
        assert cache.peek(CURRENT) is None


async def test_subscribers_hear_of_a_fill_once_its_keys_are_gone(cache):
    """Who reads again on hearing of it must not find the old value."""
    cache.put(CURRENT, b"old", 60)
    heard = []
    cache.subscribe(lambda event: heard.append((event, cache.peek(CURRENT))))

    cache.on_fill(AT)

    ((event, found),) = heard
    assert isinstance(event, Filled)
    assert (event.at, found) == (AT, None)


async def test_a_subscriber_that_fails_is_logged_and_stops_nobody(cache, caplog):
    """Those after it hear of the fill."""
    heard = []
    cache.subscribe(lambda _: 1 / 0)
    cache.subscribe(heard.append)

    cache.on_fill(AT)

    assert len(heard) == 1
    assert "ZeroDivisionError" in caplog.text


async def test_who_has_unsubscribed_hears_nothing(cache):
    """Twice is as good as once, and one of two equal subscriptions stays."""
    heard = []
    first, _ = cache.subscribe(heard.append), cache.subscribe(heard.append)

    first()
    first()
    cache.on_fill(AT)

    assert len(heard) == 1


# What is counted


async def test_every_level_counts_what_it_did(make, clock):
    """Hits and misses of each level; asking the store is a hit when it has the value."""
    async with make() as cache:
        await cache.get("key", Source(b"1").fetch, ttl_s=10)  # missed by both
        cache.peek("key")  # hits memory
        clock.advance(seconds=1)
        cache.peek("key")  # hits the disk
        await cache.get("none", Source(None).fetch, ttl_s=10)  # missed by all
        stats = cache.stats

    assert (stats.memory.hits, stats.memory.misses) == (1, 3)
    assert (stats.disk.hits, stats.disk.misses) == (1, 2)
    assert (stats.store.hits, stats.store.misses) == (1, 1)
    assert stats.memory.hit_ratio == 0.25


async def test_stats_are_of_one_instant(cache):
    """What was read does not change under the reader; nothing asked is no ratio."""
    before = cache.stats
    cache.peek("key")

    assert before.memory.hit_ratio is None
    assert cache.stats.memory.hit_ratio == 0


async def test_without_a_folder_no_disk_is_counted(cache):
    """There is no level that could have missed."""
    await cache.get("key", Source(b"1").fetch, ttl_s=10)
    await cache.flush()

    assert cache.stats.disk.misses == 0


async def test_the_log_never_holds_a_value(make, caplog):
    """What is cached is nobody's business but the owner's."""
    with caplog.at_level(logging.DEBUG, "pnl.cache"):
        async with make() as cache:
            cache.put("key", b"private", 10)
            await cache.get("other", Source(DOWN).fetch, ttl_s=10)

    assert "private" not in caplog.text


# Memory, against a model of it

MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd"), st.integers(0, 12)),
        st.tuples(st.just("get"), st.sampled_from("abcd"), st.none()),
        st.tuples(st.just("drop"), st.sampled_from("abcd"), st.none()),
        st.tuples(st.just("wait"), st.none(), st.integers(1, 6)),
    ),
    min_size=10,
    max_size=60,
)


class Model:
    """What memory should hold: at most three keys, each with when it was stored and its TTL, used last at the end."""

    def __init__(self):
        self.held = OrderedDict()
        self.evicted = 0

    def put(self, key, now, ttl):
        self.held.pop(key, None)
        self.held[key] = now, ttl
        if len(self.held) > 3:
            del self.held[next(iter(self.held))]
            self.evicted += 1

    def get(self, key, now):
        stored, ttl = self.held.get(key, (0, 0))
        if now < stored + min(ttl, 5):
            self.held[key] = self.held.pop(key)
            return stored, ttl
        return None


@given(MOVES)
def test_memory_does_what_a_list_on_paper_would(moves):
    """Least recently used goes first, at most three stay, none is fresh past its TTL or memory's own."""
    memory, model, now = Memory(entries=3, ttl_s=5), Model(), 0

    for move, key, number in moves:
        if move == "put":
            memory.put(key, Entry(key.encode(), now, number), now)
            model.put(key, now, number)
        elif move == "drop":
            memory.drop(key)
            model.held.pop(key, None)
        elif move == "wait":
            now += number
        else:
            found = memory.get(key, now)
            assert (found and (found.stored_at, found.ttl_s)) == model.get(key, now)

    assert {key for key in "abcd" if memory.last(key)} == set(model.held)
    assert memory.counts.evictions == model.evicted


def test_what_was_used_last_stays_longest():
    """Used is both: read, and put anew."""
    memory = Memory(entries=3, ttl_s=5)
    for key in "abca":
        memory.put(key, Entry(b"", 0, 5), 0)
    memory.get("b", 0)
    memory.put("d", Entry(b"", 0, 5), 0)

    assert [key for key in "abcd" if memory.last(key)] == ["a", "b", "d"]


def test_memory_holds_five_hundred(clock):
    """That is the default, and the first to come is the first to go."""
    cache = Cache(None, clock=clock.timestamp)
    for number in range(501):
        cache.put(str(number), b"", 10)

    assert [cache.peek(str(number)) is None for number in range(3)] == [True, False, False]
    assert cache.stats.memory.evictions == 1
