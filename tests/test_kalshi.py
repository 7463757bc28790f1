"""A Kalshi account is read whole and once, signed and paced; what cannot be believed is named."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ed25519
from wire import FILL, SETTLEMENT

from pnl.errors import BadRow, SourceError, SourceRefused
from pnl.ledger import Ledger
from pnl.records import Holding, Known, Mark, Result, Settlement
from pnl.simulator import RecordedAccount, Simulator
from pnl.simulator.nouns import moment
from pnl.sources.kalshi import Kalshi, Signer, archived_settlement, fill, load_private_key, mark, position, settlement
from pnl.sources.retry import BUSY_ATTEMPTS
from pnl.sources.transport import Transport

BASE = "/trade-api/v2"
FILLS = f"{BASE}/portfolio/fills"
ARCHIVE = f"{BASE}/historical/fills"
RESULTS = f"{BASE}/historical/markets"
SETTLEMENTS = f"{BASE}/portfolio/settlements"
MARKETS = f"{BASE}/markets"
BALANCE = f"{BASE}/portfolio/balance"
POSITIONS = f"{BASE}/portfolio/positions"


def account(sim, transport, time, **changes):
    """The simulated account as a source; `changes` are to the signer."""
    signing = {"key_id": sim.key_id, "key": load_private_key(sim.private_key_path), "clock": time.timestamp}
    return Kalshi(sim.kalshi_url, Signer(**signing | changes), transport, clock=time.timestamp, now=time)


@pytest.fixture
def kalshi(simulator, transport, clock):
    return account(simulator, transport, clock)


def saying(field, *rows, status=200, cursor=""):
    """An answer of the venue: one page of rows."""
    return lambda _: web.json_response({field: list(rows), "cursor": cursor}, status=status)


def take_in(ledger, batch):
    """What the next poll is told after a batch was believed."""
    ledger.add(batch.fills, batch.settlements)
    return Known(batch.cursors, ledger.open_tickers)


@pytest.mark.parametrize("key_type", ["rsa", "ed25519"])
async def test_both_kinds_of_key_are_accepted_by_the_venue(small_business, transport, clock, key_type):
    """RSA-PSS and Ed25519 signatures over time, method and path."""
    async with Simulator(small_business, now=clock, key_type=key_type) as sim:
        batch = await account(sim, transport, clock).poll(Known())

    assert batch.error is None
    assert batch.account.balance_usd is not None


async def test_every_fill_of_both_tiers_arrives_once(kalshi, small_business, clock):
    """The live tier reaches back some months and the archive has the rest: none is missing, none comes twice."""
    truth = small_business.fills(clock())
    cutoff = moment(small_business.cutoff(clock()).fills_at)

    batch = await kalshi.poll(Known())

    assert (batch.refused, batch.error) == ((), None)
    assert sorted(fill.fill_id for fill in batch.fills) == sorted(fill.fill_id for fill in truth)
    assert {fill.filled_at < cutoff for fill in batch.fills} == {True, False}
    by_id = {fill.fill_id: fill for fill in batch.fills}
    for each in truth:
        read = by_id[each.fill_id]
        assert (read.side == "yes", int(read.count * 100), int(read.fee_usd * 10**6), read.filled_at) == (
            each.is_yes, each.count, each.fee_micros, moment(each.at),
        )  # fmt: skip


async def test_archived_markets_end_by_their_result_and_the_account_adds_up(kalshi, small_business, clock):
    """Their settlements are no longer listed; without their results they would look open for ever."""
    now = clock()
    cutoff = small_business.cutoff(now).settled_at
    archived = {
        row.ticker for row in small_business.settlements(now) if row.at < cutoff and row.yes_count + row.no_count
    }
    ledger = Ledger()

    batch = await kalshi.poll(Known())
    take_in(ledger, batch)

    assert archived
    assert archived <= {row.ticker for row in batch.settlements}
    held = {p.market.ticker: Decimal(p.count) / 100 for p in small_business.open_positions(now) if p.count}
    assert {ticker: ledger.books[ticker].position.count for ticker in ledger.open_tickers} == held
    assert {mark.ticker for mark in batch.marks} >= held.keys()
    assert sum(pnl for ticker, pnl in ledger.by_market().items() if ledger.books[ticker].is_settled) == sum(
        Decimal(lifetime_micros(row)).scaleb(-6) for row in small_business.settlements(now)
    )


async def test_positions_are_of_every_market_that_was_traded_and_has_not_settled(kalshi, small_business, clock):
    """Also of one that is flat again: what it realized and was charged is compared with the ledger too."""
    truth = small_business.open_positions(clock())

    batch = await kalshi.poll(Known())

    assert {p.count == 0 for p in truth} == {True, False}
    assert batch.account.unread == ()
    assert batch.account.positions == {
        p.market.ticker: Holding(
            Decimal(p.count) / 100,
            *(Decimal(micros).scaleb(-6) for micros in (p.cost_micros, p.realized_micros, p.fees_micros)),
        )
        for p in truth
    }


async def test_a_bad_position_is_set_aside_by_name_and_the_others_count(kalshi, simulator):
    """It is not taken for a market that is gone."""
    good, bad = {"ticker": "A", "position_fp": "1.00"}, {"ticker": "B", "position_fp": "many"}
    simulator.answers[POSITIONS] = saying("market_positions", good, bad)

    account = (await kalshi.poll(Known())).account

    assert account.positions.keys() == {"A"}
    assert [str(row) for row in account.unread] == ["position B: position_fp is 'many', should be a number"]


async def test_positions_that_cannot_be_read_are_not_an_empty_account(kalshi, simulator):
    """No answer is not zero."""
    simulator.answers[POSITIONS] = lambda _: web.json_response({}, status=500)

    batch = await kalshi.poll(Known())

    assert batch.account.positions is None
    assert batch.account.balance_usd is not None


def test_a_position_without_its_money_still_has_its_contracts():
    """A figure that the venue leaves out is unknown and not zero."""
    assert position({"ticker": "A", "position_fp": "-2.50"}) == ("A", Holding(Decimal("-2.5"), None, None, None))


def lifetime_micros(row):
    pairs = min(row.yes_count, row.no_count) * 10_000
    return row.revenue_cents * 10_000 + pairs - row.yes_cost_micros - row.no_cost_micros - row.fee_micros


async def test_a_recorded_account_arrives_whole_over_many_pages(recorded_account, transport, clock):
    """5,329 fills of both tiers and 2,938 settlements of a real account, to the last digit of its P&L."""
    world, ledger = RecordedAccount(recorded_account), Ledger()
    async with Simulator(world, now=clock, key_type="ed25519", limited=False) as sim:
        take_in(ledger, await account(sim, transport, clock).poll(Known()))
        asked = sim.requests

    totals = ledger.totals({})
    assert (totals.fill_count, totals.settled_market_count) == (5329, 2938)
    assert totals.pnl_usd == Decimal("-9002.824700")
    assert asked[f"GET {FILLS}"] > 1
    assert asked[f"GET {ARCHIVE}"] > 1


async def test_the_second_poll_asks_for_what_is_new(kalshi, simulator, small_business, clock):
    """From the cursors on, with some overlap: six requests at most, however long the history."""
    ledger = Ledger()
    known = take_in(ledger, await kalshi.poll(Known()))
    before, count = ledger.fill_count, sum(simulator.requests.values())
    clock.advance(hours=6)

    batch = await kalshi.poll(known)
    take_in(ledger, batch)

    assert sum(simulator.requests.values()) - count <= 6
    assert 0 < len(batch.fills) < 30
    assert before < ledger.fill_count == len(small_business.fills(clock()))


async def test_a_start_after_a_long_pause_reads_what_went_to_the_archive(transport, simulator, small_business, clock):
    """A cursor older than the archive's end: both tiers are read from it, and the results of what was open."""
    ledger = Ledger()
    known = take_in(ledger, await account(simulator, transport, clock).poll(Known()))
    clock.advance(days=100)

    batch = await account(simulator, transport, clock).poll(known)
    take_in(ledger, batch)

    held = {position.market.ticker for position in small_business.open_positions(clock()) if position.count}
    assert batch.error is None
    assert ledger.fill_count == len(small_business.fills(clock()))
    assert ledger.open_tickers == held


async def test_since_limits_what_is_read(simulator, transport, clock):
    """`PNL_SINCE` within the live tier: the archive is not asked at all."""
    signer = Signer(simulator.key_id, load_private_key(simulator.private_key_path), clock=clock.timestamp)
    since = clock() - timedelta(days=3)

    batch = await Kalshi(simulator.kalshi_url, signer, transport, since=since, now=clock).poll(Known())

    assert batch.fills
    assert min(fill.filled_at for fill in batch.fills) >= since.replace(microsecond=0)
    assert simulator.requests[f"GET {ARCHIVE}"] == 0


async def test_a_fill_that_both_tiers_list_counts_once(kalshi, simulator):
    """While a fill moves to the archive it is in both: its id is what it is known by."""
    ledger = Ledger()
    simulator.answers[FILLS] = saying("fills", FILL)
    simulator.answers[ARCHIVE] = saying("fills", FILL)

    take_in(ledger, await kalshi.poll(Known()))

    assert [fill.fill_id for fill in ledger.fills()] == ["f-1"]


async def test_a_list_whose_cursor_repeats_is_not_used_and_the_others_are(kalshi, simulator):
    """Half a list of fills would be a wrong number; settlements and balance are right all the same."""
    simulator.answers[FILLS] = saying("fills", FILL, cursor="again")

    batch = await kalshi.poll(Known({"fills": "2026-11-20T00:00:00+00:00"}))

    assert batch.fills == ()
    assert batch.error == (
        "kalshi: /portfolio/fills repeats its cursor 'again', so the list has no end; nothing of it was used"
    )
    assert "fills" not in batch.cursors
    assert batch.settlements
    assert batch.account.balance_usd is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fee_cost": float("nan")}, "fee_cost is NaN, should be a finite number"),
        ({"fee_cost": "NaN"}, "fee_cost is 'NaN', should be a finite number"),
        ({"fee_cost": 1e308}, "should be a finite number of at most 1,000,000,000"),
        ({"fee_cost": None}, "fee_cost is missing, should be a number"),
        ({"yes_price_dollars": "1.01"}, "yes_price_dollars is 1.01, a price is at most 1 dollar"),
        ({"yes_price_dollars": "-0.01"}, "yes_price_dollars is '-0.01', should be at least 0"),
        ({"count_fp": "1.005"}, "count_fp is '1.005', finer than 0.01"),
        ({"count_fp": "0.00"}, "count_fp is '0.00', should be at least 0.01"),
        ({"created_time": "yesterday"}, "created_time is 'yesterday', should be a time"),
        ({"outcome_side": "no"}, "outcome_side and book_side contradict each other (no, bid)"),
        ({"book_side": ["bid"]}, "book_side is a list, should be one of ask, bid, no, yes"),
        ({"outcome_side": None, "book_side": None}, "book_side is missing, should be one of ask, bid, no, yes"),
    ],
)
async def test_a_bad_fill_is_set_aside_by_name_and_asked_for_again(kalshi, simulator, change, reason):
    """The good ones count, and the next poll begins where this one did: a row the venue repairs is read after all."""
    simulator.answers[FILLS] = saying("fills", {**FILL, "fill_id": "f-2", **change}, FILL)
    known = Known({"fills": "2026-11-20T00:00:00+00:00"})

    batch = await kalshi.poll(known)

    assert [fill.fill_id for fill in batch.fills] == ["f-1"]
    assert len(batch.refused) == 1
    assert str(batch.refused[0]).startswith("fill f-2: ")
    assert reason in str(batch.refused[0])
    assert batch.error is None

    simulator.answers[FILLS] = saying("fills", {**FILL, "fill_id": "f-2"}, FILL)
    repaired = await kalshi.poll(Known(batch.cursors))

    assert [fill.fill_id for fill in repaired.fills] == ["f-2", "f-1"]
    assert "fill" in repaired.reread
    assert repaired.refused == ()


async def test_a_bad_settlement_is_set_aside_by_name_and_asked_for_again(kalshi, simulator):
    """A result that is not known means nothing; guessing one would be a wrong number."""
    bad = {**SETTLEMENT, "ticker": "KXTEST-26NOV01-C", "market_result": "maybe"}
    simulator.answers[SETTLEMENTS] = saying("settlements", bad, SETTLEMENT)

    batch = await kalshi.poll(Known())

    assert "KXTEST-26NOV01-B" in {row.ticker for row in batch.settlements}
    assert [str(row) for row in batch.refused] == [
        "settlement KXTEST-26NOV01-C: market_result is 'maybe', should be one of no, scalar, void, yes"
    ]
    assert batch.cursors["settlements_again"]


@pytest.mark.parametrize(
    "answer", [saying("markets", {"ticker": "X", "result": "maybe"}), saying("markets", status=500)]
)
async def test_results_of_the_archive_that_cannot_be_read_are_asked_for_again(kalshi, simulator, answer):
    """Everything else of the poll counts, and the archive does not pass for read."""
    simulator.answers[RESULTS] = answer
    first = await kalshi.poll(Known())
    del simulator.answers[RESULTS]
    ledger = Ledger()

    known = take_in(ledger, first)
    settled_at_first = ledger.totals({}).settled_market_count

    second = await kalshi.poll(known)
    third = await kalshi.poll(take_in(ledger, second))

    assert first.fills
    assert first.refused or first.error
    assert (second.error, second.refused) == (None, ())
    assert ledger.totals({}).settled_market_count > settled_at_first
    assert len(third.fills) < len(second.fills)


async def test_a_fill_dated_into_the_future_does_not_hide_the_next_ones(kalshi, simulator, clock):
    """The cursor never passes the present."""
    simulator.answers[FILLS] = saying("fills", {**FILL, "created_time": "2199-01-01T00:00:00Z"})

    batch = await kalshi.poll(Known())

    assert batch.cursors["fills"] == clock().isoformat()


async def test_a_clock_that_is_a_minute_off_is_what_the_error_names(simulator, transport, clock):
    """The venue refuses such a signature; the person sets the clock and not the key."""
    late = account(simulator, transport, clock, clock=lambda: clock.timestamp() - 60)

    with pytest.raises(SourceRefused, match="HTTP 401: the clock of this machine is off") as failure:
        await late.poll(Known())

    assert failure.value.status == 401


async def test_a_key_of_somebody_else_is_what_the_error_names(simulator, transport, clock):
    """The signature does not fit the key id."""
    stranger = account(simulator, transport, clock, key=ed25519.Ed25519PrivateKey.generate())

    with pytest.raises(SourceRefused, match="the private key does not belong to the key id; check PNL_KALSHI_PRIV"):
        await stranger.poll(Known())


async def test_an_unknown_key_id_is_what_the_error_names_without_showing_it(simulator, transport, clock):
    """Keys belong to one environment, so the address is suspect too."""
    with pytest.raises(SourceRefused, match="check PNL_KALSHI_KEY_ID and PNL_KALSHI_URL") as failure:
        await account(simulator, transport, clock, key_id="canary-4711").poll(Known())

    assert "canary-4711" not in str(failure.value)


async def test_a_refused_key_leaves_the_public_prices(simulator, transport, clock):
    """Marks need no key: they count, beside the error."""
    ticker = next(p.market.ticker for p in simulator._world.open_positions(clock()))
    stranger = account(simulator, transport, clock, key=ed25519.Ed25519PrivateKey.generate())

    batch = await stranger.poll(Known(open_tickers=frozenset({ticker})))

    assert [mark.ticker for mark in batch.marks] == [ticker]
    assert "PNL_KALSHI_PRIVATE_KEY_PATH" in batch.error


async def test_a_wrong_address_is_what_the_error_names(simulator, transport, clock):
    """A gateway's 404 says nothing; the setting does."""
    source = account(simulator, transport, clock)
    source._url = simulator.kalshi_url.replace(BASE, f"/elsewhere{BASE}")

    with pytest.raises(SourceRefused, match=r"HTTP 404: is PNL_KALSHI_URL right\?"):
        await source.poll(Known())


@pytest.fixture
async def hasty(simulator, clock):
    """The account over a transport that does not wait between two attempts."""

    async def at_once(_pause_s):
        pass

    async with Transport(sleep=at_once) as transport:
        yield account(simulator, transport, clock)


async def test_too_many_requests_cost_one_feed_and_not_the_poll(hasty, simulator):
    """A 429 passes by itself: it is no refusal, and the other feeds count."""
    simulator.answers[SETTLEMENTS] = lambda _: web.json_response({"error": "too many requests"}, status=429)

    batch = await hasty.poll(Known())

    assert batch.fills
    assert simulator.requests[f"GET {SETTLEMENTS}"] == BUSY_ATTEMPTS
    assert batch.error.endswith("answered HTTP 429: too many requests; the next poll waits its turn")


async def test_too_many_requests_are_asked_again_until_there_is_room(hasty, simulator, clock):
    """Two programs on one account pass each other without a partial total; each attempt is signed anew."""
    signatures = []

    def busy(request):
        signatures.append(request.headers["KALSHI-ACCESS-SIGNATURE"])
        clock.advance(milliseconds=1)
        if len(signatures) == 2:
            del simulator.answers[SETTLEMENTS]
        return web.json_response({"error": "too many requests"}, status=429)

    simulator.answers[SETTLEMENTS] = busy

    batch = await hasty.poll(Known())

    assert batch.error is None
    assert batch.settlements
    assert len(set(signatures)) == 2


async def test_a_source_without_a_network_raises(transport, simulator, clock):
    """No feed could be read: the last good value stands, with its age."""
    source = account(simulator, transport, clock)
    source._url = "http://127.0.0.1:9/trade-api/v2"

    with pytest.raises(SourceError, match="cannot be reached"):
        await source.poll(Known())


async def test_the_limits_of_the_venue_are_kept(small_business, transport, clock):
    """Twice the requests that it takes at once, at a venue that counts: not one is refused."""
    tickers = frozenset(f"KX-{number}" for number in range(1500))
    async with Simulator(small_business, now=clock, key_type="ed25519", limited=True) as sim:
        batch = await account(sim, transport, clock).poll(Known(open_tickers=tickers))

    assert batch.error is None
    assert sum(sim.requests.values()) > 2 * 18


async def test_the_balance_is_asked_for_once_a_second_at_most(kalshi, simulator, clock):
    """It has a limit of its own; in between, the last one stands."""
    known = Known({"fills": clock().isoformat(), "settlements": clock().isoformat()})
    batches = [await kalshi.poll(known)]
    asked = []
    for seconds in (0.9, 0.2, 0.9):
        clock.advance(seconds=seconds)
        batches.append(await kalshi.poll(known))
        asked.append(simulator.requests[f"GET {BALANCE}"])

    assert asked == [1, 2, 2]
    assert all(batch.account.balance_usd for batch in batches)


@pytest.mark.parametrize("page", [{"balance_dollars": "NaN"}, {}, [], "no"])
async def test_a_balance_that_makes_no_sense_costs_only_itself(kalshi, simulator, page):
    """It is only compared with the ledger."""
    simulator.answers[BALANCE] = lambda _: web.json_response(page)

    batch = await kalshi.poll(Known())

    assert batch.fills
    assert batch.account.balance_usd is None
    assert batch.error.startswith("kalshi: the balance cannot be read: ")


@pytest.mark.parametrize("page", [{}, [], {"trades_created_ts": "soon"}])
async def test_an_archive_without_an_end_costs_the_fills_and_nothing_else(kalshi, simulator, page):
    """Without it nobody knows which tier holds what."""
    simulator.answers[f"{BASE}/historical/cutoff"] = lambda _: web.json_response(page)

    batch = await kalshi.poll(Known())

    assert batch.fills == ()
    assert batch.settlements
    assert batch.error.startswith("kalshi: the archive's cutoff cannot be read: ")


async def test_an_answer_without_its_list_is_an_error(kalshi, simulator):
    """An empty object is not an empty list."""
    simulator.answers[FILLS] = lambda _: web.json_response({"fill": []})

    batch = await kalshi.poll(Known())

    assert batch.error == "kalshi: the answer holds no list of fills; is PNL_KALSHI_URL right?"


async def test_an_empty_book_is_passed_on_and_is_no_price(kalshi, simulator, clock):
    """The model keeps the last good mark; here nothing is hidden and nothing made up."""
    row = {"ticker": "A", "yes_bid_dollars": "0.0000", "yes_ask_dollars": "1.0000", "yes_sub_title": "<b>A</b>"}
    simulator.answers[MARKETS] = saying("markets", row)

    batch = await kalshi.poll(Known(open_tickers=frozenset({"A"})))

    assert batch.marks[0] == Mark("A", Decimal(0), Decimal(1), clock(), "<b>A</b>")
    assert not batch.marks[0].is_real


@pytest.mark.parametrize(
    ("fields", "closes_at"),
    [
        ({}, None),
        ({"close_time": "2026-12-31T12:00:00Z"}, datetime(2026, 12, 31, 12, tzinfo=UTC)),
        (
            {"close_time": "2026-12-31T12:00:00Z", "expected_expiration_time": "2026-11-23T03:00:00Z"},
            datetime(2026, 11, 23, 3, tzinfo=UTC),
        ),
        (
            {"close_time": "2026-12-31T12:00:00Z", "expected_expiration_time": None},
            datetime(2026, 12, 31, 12, tzinfo=UTC),
        ),
        ({"close_time": "<script>"}, None),
        ({"close_time": "9999-01-01T00:00:00Z"}, None),
    ],
)
def test_a_market_says_when_it_is_expected_to_end(fields, closes_at):
    """Trading may stay open for weeks after a game; a time that makes no sense costs no price."""
    row = {"ticker": "A", "yes_bid_dollars": "0.4000", "yes_ask_dollars": "0.5000", **fields}

    found = mark(row, datetime(2026, 11, 22, tzinfo=UTC))

    assert found.is_real
    assert found.closes_at == closes_at


async def test_marks_of_many_markets_are_asked_for_by_the_hundred(kalshi, simulator):
    """An address has a length; 250 tickers are three requests."""
    asked = []

    def answer(request):
        asked.append(len(request.query["tickers"].split(",")))
        return web.json_response({"markets": []})

    simulator.answers[MARKETS] = answer
    simulator.answers[FILLS] = saying("fills")
    now = "2026-11-22T00:00:00+00:00"
    await kalshi.poll(Known({"fills": now}, frozenset(f"KX-{number}" for number in range(250))))

    assert asked == [100, 100, 50]


@pytest.mark.parametrize(
    ("fields", "side"),
    [
        ({"outcome_side": "yes", "book_side": "bid", "side": "no", "action": "sell"}, "yes"),
        ({"outcome_side": "no", "book_side": "ask", "side": "yes", "action": "buy"}, "no"),
        ({"outcome_side": "no", "book_side": "ask", "side": "no", "action": "sell"}, "no"),
        ({"outcome_side": "no", "book_side": None}, "no"),
        ({"outcome_side": None, "book_side": "bid"}, "yes"),
        ({"outcome_side": None, "book_side": "ask", "side": "yes", "action": "buy"}, "no"),
    ],
)
def test_direction_is_what_was_acquired_whatever_the_old_fields_say(fields, side):
    """`side` and `action` are deprecated and contradict it."""
    assert fill({**FILL, **fields}).side == side


@pytest.mark.parametrize(("outcome", "book"), [("yes", "ask"), ("no", "bid")])
def test_two_directions_that_contradict_each_other_are_refused(outcome, book):
    """Neither can be believed."""
    with pytest.raises(BadRow, match="contradict each other"):
        fill({**FILL, "outcome_side": outcome, "book_side": book})


def test_a_settlement_is_gross_and_its_cents_become_dollars():
    """Row and example of the reference."""
    assert settlement(SETTLEMENT) == Settlement(
        "KXTEST-26NOV01-B", "KXTEST-26NOV01", Result.YES, Decimal(39), Decimal("16.26"), Decimal(17),
        Decimal("14.45"), Decimal(22), Decimal(0), Decimal(1), datetime(2026, 11, 17, 11, 6, 40, tzinfo=UTC),
    )  # fmt: skip
    assert settlement({**SETTLEMENT, "market_result": "void"}).result is Result.VOID
    assert settlement({name: value for name, value in SETTLEMENT.items() if name != "value"}).value_usd is None


def test_a_scalar_result_of_the_archive_needs_its_value():
    """What one YES paid is all that is known of it."""
    row = {"ticker": "A", "event_ticker": "E", "result": "scalar", "close_time": "2026-01-01T00:00:00Z"}

    assert archived_settlement({**row, "settlement_value_dollars": "0.3700"}).value_usd == Decimal("0.37")
    with pytest.raises(BadRow, match="settlement_value_dollars is missing"):
        archived_settlement(row)


def test_a_crossed_book_is_no_price():
    """A bid above the ask is a book in motion."""
    row = {"ticker": "A", "yes_bid_dollars": "0.6000", "yes_ask_dollars": "0.5900"}

    assert not mark(row, datetime.now(UTC)).is_real


def test_a_signer_shows_neither_key_nor_id():
    """It stands in tracebacks."""
    assert "canary" not in repr(Signer("canary", ed25519.Ed25519PrivateKey.generate()))
