"""A source that goes on failing is left alone, and one request at a time finds out whether it is back."""

import asyncio
import random
from datetime import datetime

import pytest
from aiohttp.test_utils import unused_port

from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import SourceBusy, SourceError, SourceResting
from pnl.sources.breaker import Breaker, time_of_day

DOWN = SourceError("kalshi: /fills at venue answered HTTP 500")
INTERLEAVINGS = 10_000


@pytest.fixture
def breaker(clock):
    return Breaker("kalshi", failures=3, rest_s=60, clock=clock.timestamp, now=clock)


async def answer(breaker):
    """One request that is answered; returns its permit."""
    async with breaker.guard() as permit:
        return permit


async def fail(breaker, error=DOWN):
    """One request that fails; returns what the caller sees."""
    with pytest.raises(SourceError) as failure:
        async with breaker.guard():
            raise error
    return failure.value


async def trip(breaker):
    while breaker.state == "closed":
        await fail(breaker)


class Held:
    """A request that is out until the test decides what becomes of it."""

    def __init__(self, breaker):
        self._end = asyncio.get_running_loop().create_future()
        self.is_out = False
        self.task = asyncio.create_task(self._run(breaker))

    async def _run(self, breaker):
        async with breaker.guard():
            self.is_out = True
            await self._end

    async def end(self, error=None):
        """Answer it, or fail it; returns the error that its caller sees."""
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)
        return (await asyncio.gather(self.task, return_exceptions=True))[0]


async def sent(breaker, count):
    """So many requests, each either out or waiting for the probe."""
    held = [Held(breaker) for _ in range(count)]
    await asyncio.sleep(0)  # each one runs up to where it waits
    return held


def out(requests):
    return [request for request in requests if request.is_out and not request.task.done()]


async def test_it_opens_after_more_failures_in_a_row_than_are_allowed(breaker):
    """Three are bad luck, the fourth is a source that is down."""
    for _ in range(3):
        await fail(breaker)
    at_three = breaker.state

    await fail(breaker)

    assert (at_three, breaker.state) == ("closed", "open")
    assert breaker.next_try_s == 60


async def test_an_answer_in_between_begins_the_count_anew(breaker):
    """Only failures in a row count."""
    for _ in range(10):
        for _ in range(3):
            await fail(breaker)
        await answer(breaker)

    assert breaker.state == "closed"


async def test_while_it_is_open_a_request_fails_at_once_and_says_why_and_until_when(breaker, clock):
    """In words for a person: how often, the last reason, and the time of the next try."""
    await trip(breaker)
    clock.advance(seconds=59)

    with pytest.raises(SourceResting) as failure:
        await answer(breaker)

    assert str(failure.value) == (
        "kalshi: not asked until 09:31:01 UTC after 4 failures in a row; the last: /fills at venue answered HTTP 500"
    )
    assert breaker.next_try_s == 1


async def test_requests_side_by_side_that_fail_together_are_one_failure(breaker):
    """A poll that sends five at once must not open it alone."""
    for poll in range(1, 5):
        requests = await sent(breaker, 5)
        for request in requests:
            assert await request.end(DOWN) is DOWN
        assert (poll, breaker.state) == (poll, "closed" if poll < 4 else "open")


async def test_a_request_that_began_before_the_rest_changes_nothing_by_its_end(breaker):
    """Late answers and late failures belong to the time before."""
    late_answer, late_failure = await sent(breaker, 2)
    await trip(breaker)

    await late_failure.end(DOWN)
    await late_answer.end()

    assert (breaker.state, breaker.next_try_s) == ("open", 60)


async def test_a_source_in_doubt_gets_one_attempt_a_request(breaker, clock):
    """Neither after a failure nor as a probe is anything tried again."""
    fresh = await answer(breaker)
    await fail(breaker)
    doubted = await answer(breaker)
    await trip(breaker)
    clock.advance(seconds=60)
    probe = await answer(breaker)

    assert [permit.may_retry for permit in (fresh, doubted, probe)] == [True, False, False]


async def test_fifty_requests_wait_for_one_probe_and_go_out_when_it_is_answered(breaker, clock):
    """The source comes back to one request, not to fifty."""
    await trip(breaker)
    clock.advance(seconds=60)
    requests = await sent(breaker, 50)
    first = out(requests)

    await first[0].end()
    await asyncio.sleep(0)

    assert len(first) == 1
    assert breaker.state == "closed"
    assert len(out(requests)) == 49
    assert [await request.end() for request in out(requests)] == [None] * 49


async def test_fifty_requests_fail_with_the_probe_that_fails(breaker, clock):
    """They were never out, and the rest begins anew."""
    await trip(breaker)
    clock.advance(seconds=60)
    requests = await sent(breaker, 50)

    assert await requests[0].end(DOWN) is DOWN
    refused = await asyncio.gather(*(request.task for request in requests[1:]), return_exceptions=True)

    assert {type(error) for error in refused} == {SourceResting}
    assert not any(request.is_out for request in requests[1:])
    assert (breaker.state, breaker.next_try_s) == ("open", 60)
    assert "after 5 failures in a row" in str(refused[0])


async def test_a_cancelled_probe_hands_its_role_to_the_next_in_line(breaker, clock):
    """A session that ends takes nobody with it."""
    await trip(breaker)
    clock.advance(seconds=60)
    requests = await sent(breaker, 4)

    for position in range(3):
        assert out(requests) == [requests[position]]
        requests[position].task.cancel()
        await asyncio.wait([requests[position].task])
        await asyncio.sleep(0)
    await requests[3].end()

    assert breaker.state == "closed"


async def test_a_waiter_that_is_cancelled_leaves_the_probe_alone(breaker, clock):
    """It was in no role."""
    await trip(breaker)
    clock.advance(seconds=60)
    probe, waiter = await sent(breaker, 2)

    waiter.task.cancel()
    await asyncio.wait([waiter.task])

    assert breaker.state == "half_open"
    assert await probe.end() is None
    assert breaker.state == "closed"


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError("a mistake of ours")])
async def test_what_says_nothing_about_the_source_never_counts(breaker, error):
    """Cancellations and our own mistakes: a hundred of them open nothing."""
    for _ in range(100):
        with pytest.raises(type(error)):
            async with breaker.guard():
                raise error

    assert breaker.state == "closed"
    assert (await answer(breaker)).may_retry


async def test_a_source_that_says_when_to_come_back_is_left_alone_until_then(breaker, clock):
    """At the first time, and not a second earlier; what it said stands in every refusal."""
    busy = SourceBusy("kalshi: limited, asked again at 09:30:31 UTC", retry_after_s=30)
    await fail(breaker, busy)
    clock.advance(seconds=29.9)

    refusal = await fail(breaker)
    clock.advance(seconds=0.1)

    assert (type(refusal), str(refusal)) == (SourceResting, str(busy))
    assert breaker.state == "half_open"
    assert await answer(breaker)


async def test_the_longest_of_two_rests_is_kept(breaker):
    """Five requests side by side may each be told something else."""
    requests = await sent(breaker, 3)

    for request, wait_s in zip(requests, (30, 40, 20), strict=True):
        await request.end(SourceBusy("busy", retry_after_s=wait_s))

    assert breaker.next_try_s == 40


async def test_a_source_that_is_busy_without_saying_how_long_counts_like_any_failure(breaker):
    """It is not left alone at once."""
    busy = SourceBusy("kalshi: answered HTTP 429")
    await fail(breaker, busy)
    at_first = breaker.state
    for _ in range(3):
        await fail(breaker, busy)

    assert (at_first, breaker.state) == ("closed", "open")


async def test_the_settings_decide_when_it_opens_and_for_how_long(folder):
    """From the environment or `pnl.toml` to the source's breaker."""
    nobody = f"http://127.0.0.1:{unused_port()}/deals"
    async with Engine(load_settings(data_dir=folder, john_url=nobody, breaker_failures=1, breaker_s=3600)) as engine:
        polls = [await engine.sync() for _ in range(3)]
    errors = [reading.error for poll in polls for reading in poll.sources if reading.source == "john"]

    assert ["not asked until" in error for error in errors] == [False, False, True]
    assert "after 2 failures in a row; the last: /deals at 127.0.0.1" in errors[2]


class Interleaving:
    """Requests that come, are answered, fail or are cancelled, and time that passes, as a seed decides."""

    def __init__(self, breaker, clock, seed):
        self._breaker = breaker
        self._clock = clock
        self._dice = random.Random(seed)  # noqa: S311 - nothing secret is drawn
        self._probes_out = 0
        self.probes = 0
        self.most_probes_out = 0

    async def run(self):
        """All of them to their ends."""
        tasks = [asyncio.create_task(self._request()) for _ in range(self._dice.randint(2, 6))]
        while not all(task.done() for task in tasks):
            if self._dice.random() < 0.1:
                self._dice.choice(tasks).cancel()
            if self._dice.random() < 0.1:
                self._clock.advance(seconds=self._dice.choice((1, 59, 60)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _request(self):
        await self._while_others_run()
        async with self._breaker.guard():
            is_probe = self._breaker.state == "half_open"
            self.probes += is_probe
            self._probes_out += is_probe
            self.most_probes_out = max(self.most_probes_out, self._probes_out)
            try:
                await self._while_others_run()
                if self._dice.random() < 0.5:
                    raise DOWN
            finally:
                self._probes_out -= is_probe

    async def _while_others_run(self):
        for _ in range(self._dice.randint(0, 3)):
            await asyncio.sleep(0)


async def test_in_no_order_of_events_is_more_than_one_probe_out(clock):
    """Ten thousand interleavings of arrivals, answers, failures, cancellations and time; none leaves it stuck."""
    probes = 0
    for seed in range(INTERLEAVINGS):
        breaker = Breaker("kalshi", failures=1, rest_s=60, clock=clock.timestamp, now=clock)
        await trip(breaker)
        clock.advance(seconds=60)
        order = Interleaving(breaker, clock, seed)

        await order.run()
        clock.advance(seconds=60)
        await asyncio.wait_for(answer(breaker), 60)

        assert (seed, order.most_probes_out) <= (seed, 1)
        assert (seed, breaker.state) == (seed, "closed")
        probes += order.probes
    assert probes > INTERLEAVINGS


@pytest.mark.parametrize(
    ("now", "in_s", "told"),
    [
        ("2026-11-22T13:05:10+00:00", 0, "13:05:10 UTC"),
        ("2026-11-22T13:05:10.000001+00:00", 0, "13:05:11 UTC"),
        ("2026-11-22T13:05:10.500000+00:00", 0.5, "13:05:11 UTC"),
        ("2026-11-22T23:59:30+00:00", 60, "00:00:30 UTC"),
        ("2026-11-22T08:05:10-05:00", 42, "13:05:52 UTC"),
    ],
)
def test_the_time_that_is_named_is_never_too_early(now, in_s, told):
    """Whole seconds, rounded up, in UTC whatever the zone."""
    assert time_of_day(datetime.fromisoformat(now), in_s) == told
