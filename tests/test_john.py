"""Revenue is what was earned: from a deals endpoint, from Stripe or from a file, each deal as it stood last."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from aiohttp import web
from pydantic import SecretStr
from wire import DEAL

from pnl.errors import SourceError, SourceRefused
from pnl.model import PnLModel
from pnl.records import Known
from pnl.sources.john import DealsEndpoint, DealsFile, John, Stripe, place_of

DEALS = "/deals"
TRANSACTIONS = "/v1/balance_transactions"
CHARGE = {
    "id": "txn_1",
    "amount": 10_000,
    "fee": 320,
    "net": 9_680,
    "currency": "usd",
    "type": "charge",
    "created": 1_795_000_000,
    "description": "Forecast feed",
}
HEADER = "id,amount,currency,closed_date,status,updated_at,description\n"
LINES = (
    "deal-1,1200.50,USD,2026-11-01,won,2026-11-02T10:00:00Z,Forecast feed\n"
    'deal-2,80,usd,2026-11-03,paid,,"Alerts, daily"\n'
)


def john(url, token, transport, since=None):
    return John(place_of(url, token and SecretStr(token), transport, since))


@pytest.fixture
def endpoint(simulator, transport):
    return john(simulator.john_url, simulator.john_token, transport)


@pytest.fixture
def stripe(simulator, transport):
    return john(simulator.stripe_url, simulator.john_token, transport)


@pytest.fixture
def file(tmp_path):
    """A CSV file with two good deals."""
    path = tmp_path / "deals.csv"
    path.write_text(HEADER + LINES)
    return path


@pytest.fixture
def model(clock):
    return PnLModel(now=clock)


def saying(*deals, next_cursor=None):
    return lambda _: web.json_response({"data": list(deals), "next_cursor": next_cursor})


def moving(*transactions, has_more=False):
    return lambda _: web.json_response({"object": "list", "has_more": has_more, "data": list(transactions)})


async def revenue(model, source):
    """What the model makes of one poll: revenue and what it cost."""
    model.read_from([source])
    await model.pull("john")
    snapshot = model.put_together()
    return snapshot.total_revenue, snapshot.billed_costs


@pytest.mark.parametrize(
    ("url", "kind", "origin"),
    [
        ("https://crm.example/deals?team=7", DealsEndpoint, "deals:https://crm.example/deals"),
        ("https://api.stripe.com", Stripe, "stripe:https://api.stripe.com"),
        ("https://api.stripe.com/", Stripe, "stripe:https://api.stripe.com"),
        ("/srv/deals.csv", DealsFile, "csv:/srv/deals.csv"),
    ],
)
def test_the_kind_follows_from_the_setting(url, kind, origin):
    """An address with a path is an endpoint, a bare one is Stripe's, anything else is a file."""
    place = place_of(url, None, None, None)

    assert isinstance(place, kind)
    assert place.origin == origin


async def test_every_deal_of_the_business_arrives(endpoint, small_business, clock):
    """Amounts, statuses and days as they stand now; what is lost or refunded is no revenue."""
    batch = await endpoint.poll(Known())

    truth = {deal.deal_id: deal for deal in small_business.deals(clock())}
    assert (batch.refused, batch.holds_all_deals) == ((), False)
    assert {deal.deal_id: int(deal.amount_usd * 100) for deal in batch.deals} == {
        deal_id: deal.amount_cents for deal_id, deal in truth.items()
    }
    counted = sum(deal.amount_cents for deal in truth.values() if deal.status in {"won", "invoiced", "paid"})
    assert sum(deal.revenue_usd for deal in batch.deals) == Decimal(counted) / 100
    assert {deal.status for deal in batch.deals} > {"paid"}


async def test_pages_are_followed_and_the_next_poll_asks_for_what_changed(endpoint, simulator):
    """`next_cursor` leads on; later, `updated_since` with three days of overlap."""
    asked = []

    def answer(request):
        asked.append({name: request.query[name] for name in ("cursor", "updated_since") if name in request.query})
        is_first = len(asked) == 1
        deal = {**DEAL, "id": f"deal-{len(asked)}"}
        return web.json_response({"data": [deal], "next_cursor": "more" if is_first else None})

    simulator.answers[DEALS] = answer
    first = await endpoint.poll(Known())
    await endpoint.poll(Known(first.cursors))

    assert [deal.deal_id for deal in first.deals] == ["deal-1", "deal-2"]
    assert first.cursors == {"updated_to": "2026-11-02T10:00:00+00:00"}
    assert asked == [{}, {"cursor": "more"}, {"updated_since": "2026-10-30T10:00:00Z"}]


async def test_a_list_without_end_is_not_used(endpoint, simulator):
    """Half a list of deals is a wrong total."""
    simulator.answers[DEALS] = saying(DEAL, next_cursor="again")

    with pytest.raises(SourceError, match="john: the list of deals repeats its cursor 'again'"):
        await endpoint.poll(Known())


async def test_since_limits_the_first_read(simulator, transport):
    """`PNL_SINCE` is the first `updated_since`; the parameters of the setting stay."""
    asked = []

    def answer(request):
        asked.append(dict(request.query))
        return web.json_response({"data": [], "next_cursor": None})

    simulator.answers[DEALS] = answer
    since = datetime(2026, 11, 1, tzinfo=UTC)
    await john(f"{simulator.john_url}?team=7", simulator.john_token, transport, since).poll(Known())

    assert asked == [{"team": "7", "limit": "100", "updated_since": "2026-11-01T00:00:00Z"}]


async def test_a_refunded_deal_is_revenue_no_more(endpoint, simulator, model):
    """A status of `refunded` takes back what was counted."""
    simulator.answers[DEALS] = saying(DEAL)
    before, _ = await revenue(model, endpoint)
    simulator.answers[DEALS] = saying({**DEAL, "status": "refunded", "updated_at": "2026-11-20T00:00:00Z"})

    after, _ = await revenue(model, endpoint)

    assert (before, after) == (Decimal("1200.50"), 0)


@pytest.mark.parametrize("order", [1, -1])
async def test_the_latest_change_of_a_deal_wins_in_whatever_order_it_comes(endpoint, simulator, model, order):
    """Neither the place in the list nor the time of arrival counts, only `updated_at`."""
    old, new = DEAL, {**DEAL, "amount": "99", "updated_at": "2026-11-02T10:00:01Z"}
    simulator.answers[DEALS] = saying(*[old, new][::order])

    assert await revenue(model, endpoint) == (99, 0)

    simulator.answers[DEALS] = saying(old)
    assert await revenue(model, endpoint) == (99, 0)


async def test_a_negative_amount_is_revenue_given_back(endpoint, simulator, model):
    """A credit note is a deal below zero."""
    simulator.answers[DEALS] = saying(DEAL, {**DEAL, "id": "deal-2", "amount": "-200.50"})

    assert await revenue(model, endpoint) == (1000, 0)


async def test_a_deal_without_a_change_date_is_dated_by_its_close_and_hides_nothing(endpoint, simulator):
    """It may close in the future: the cursor never passes the present."""
    simulator.answers[DEALS] = saying({**DEAL, "updated_at": None, "closed_date": "2199-01-01"})

    batch = await endpoint.poll(Known())

    assert batch.deals[0].closed_on == date(2199, 1, 1)
    assert datetime.fromisoformat(batch.cursors["updated_to"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"currency": "EUR"}, "currency is 'EUR', only USD can be added up; convert it at the source"),
        ({"currency": None}, "currency is 'None', only USD"),
        ({"status": "maybe"}, "status is 'maybe', should be one of invoiced, lost, paid, refunded, won"),
        ({"amount": "12,50"}, "amount is '12,50', should be a number"),
        ({"amount": float("inf")}, "should be a finite number"),
        ({"closed_date": "soon"}, "closed_date is 'soon', should be a time"),
    ],
)
async def test_a_bad_deal_is_named_and_asked_for_again(endpoint, simulator, change, reason):
    """The good ones count, and the next poll begins where this one did."""
    simulator.answers[DEALS] = saying({**DEAL, "id": "deal-7", **change}, DEAL)
    known = Known({"updated_to": "2026-11-01T00:00:00+00:00"})

    batch = await endpoint.poll(known)

    assert [deal.deal_id for deal in batch.deals] == ["deal-1"]
    assert str(batch.refused[0]).startswith("deal deal-7: ")
    assert reason in str(batch.refused[0])
    assert batch.cursors["updated_to_again"]
    assert "deal" in (await endpoint.poll(Known(batch.cursors))).reread


@pytest.mark.parametrize(("path", "advice"), [(DEALS, "check PNL_JOHN_TOKEN"), (TRANSACTIONS, "check PNL_JOHN_TOKEN")])
async def test_a_wrong_token_is_what_the_error_names_without_showing_it(simulator, transport, path, advice):
    """The same for both web places."""
    url = simulator.john_url if path == DEALS else simulator.stripe_url

    with pytest.raises(SourceRefused, match=f"john: {path} at .* answered HTTP 401: {advice}") as failure:
        await john(url, "canary-4711", transport).poll(Known())

    assert "canary-4711" not in str(failure.value)


async def test_a_wrong_address_is_what_the_error_names(simulator, transport):
    """404 or an answer of another shape: the setting is suspect."""
    with pytest.raises(SourceRefused, match=r"HTTP 404: is PNL_JOHN_URL right\?"):
        await john(f"{simulator.john_url}/elsewhere", simulator.john_token, transport).poll(Known())

    simulator.answers[DEALS] = lambda _: web.json_response({"deals": []})
    with pytest.raises(SourceError, match=r"john: the answer holds no list of data; is PNL_JOHN_URL right\?"):
        await john(simulator.john_url, simulator.john_token, transport).poll(Known())


async def test_a_place_without_a_token_is_asked_without_one(simulator, transport):
    """A loopback endpoint may need none."""
    sent = []

    def answer(request):
        sent.append(request.headers.get("Authorization"))
        return web.json_response({"data": []})

    simulator.answers[DEALS] = answer
    await john(simulator.john_url, None, transport).poll(Known())

    assert sent == [None]


async def test_stripe_and_the_deals_endpoint_tell_the_same_story(stripe, model, small_business, clock):
    """What was paid less what was refunded is revenue, fees are costs, payouts are neither."""
    paid = [deal for deal in small_business.deals(clock()) if deal.paid_at]
    kept = sum(deal.amount_cents for deal in paid if deal.refunded_at is None)
    fees = sum(deal.amount_cents * 29 // 1000 + 30 for deal in paid)

    earned_usd, cost_usd = await revenue(model, stripe)

    assert (earned_usd, cost_usd) == (Decimal(kept) / 100, Decimal(fees) / 100)
    assert not any("payout" in deal.deal_id for deal in model.readings["john"].value.deals)


@pytest.mark.parametrize(
    ("change", "usd"),
    [
        ({}, ("100", "3.20")),
        ({"type": "payment"}, ("100", "3.20")),
        ({"type": "refund", "amount": -10_000, "fee": 0}, ("-100", "0")),
        ({"type": "adjustment", "amount": -10_000, "fee": 1500}, ("-100", "15")),
        ({"type": "stripe_fee", "amount": -250, "fee": 0}, ("0", "2.50")),
    ],
)
async def test_a_transaction_is_gross_with_its_fee_apart(stripe, simulator, model, change, usd):
    """Net is the amount less the fee: a fee is a cost and not a smaller revenue."""
    simulator.answers[TRANSACTIONS] = moving({**CHARGE, **change})

    assert await revenue(model, stripe) == tuple(map(Decimal, usd))


async def test_own_money_that_moves_is_no_revenue(stripe, simulator):
    """Payouts, transfers and top-ups are dropped, and not even named."""
    own = [{**CHARGE, "id": f"txn_{kind}", "type": kind} for kind in ("payout", "transfer", "topup", "payout_failure")]
    simulator.answers[TRANSACTIONS] = moving(*own, CHARGE)

    batch = await stripe.poll(Known())

    assert [deal.deal_id for deal in batch.deals] == ["txn_1"]
    assert batch.refused == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"currency": "jpy"}, "currency is 'jpy', only USD can be added up"),
        ({"type": "something_new"}, "type is 'something_new', should be one of "),
        ({"type": ["payout"]}, "type is a list, should be one of "),
        ({"created": 10**15}, "created is 1000000000000000, should be a finite number of at most"),
    ],
)
async def test_a_transaction_that_cannot_be_added_up_is_named(stripe, simulator, change, reason):
    """A zero-decimal currency read as cents would be a hundredfold too small."""
    simulator.answers[TRANSACTIONS] = moving({**CHARGE, "id": "txn_7", **change}, CHARGE)

    batch = await stripe.poll(Known())

    assert [deal.deal_id for deal in batch.deals] == ["txn_1"]
    assert str(batch.refused[0]).startswith(f"deal txn_7: {reason}")
    assert batch.cursors["updated_to_again"]


async def test_stripe_is_read_page_by_page_from_the_newest(stripe, simulator):
    """The last id of a page leads to the next; later polls ask from three days before the newest."""
    asked = []

    def answer(request):
        asked.append({name: request.query[name] for name in request.query if name != "limit"})
        is_first = len(asked) == 1
        return moving({**CHARGE, "id": f"txn_{len(asked)}"}, has_more=is_first)(request)

    simulator.answers[TRANSACTIONS] = answer
    first = await stripe.poll(Known())
    await stripe.poll(Known(first.cursors))

    assert len(first.deals) == 2
    since = 1_795_000_000 - int(timedelta(days=3).total_seconds())
    assert asked == [{}, {"starting_after": "txn_1"}, {"created[gte]": str(since)}]


async def test_a_file_holds_all_deals(file):
    """Column names of the endpoint; without `updated_at`, the closing day dates a deal."""
    batch = await john(str(file), None, None).poll(Known())

    assert [(deal.deal_id, deal.amount_usd, deal.closed_on, deal.description) for deal in batch.deals] == [
        ("deal-1", Decimal("1200.50"), date(2026, 11, 1), "Forecast feed"),
        ("deal-2", Decimal(80), date(2026, 11, 3), "Alerts, daily"),
    ]
    assert batch.deals[1].updated_at == datetime(2026, 11, 3, tzinfo=UTC)
    assert batch.holds_all_deals
    assert batch.refused == ()


async def test_a_file_from_a_spreadsheet_may_begin_with_a_mark(file):
    """Excel writes a byte order mark and carriage returns, and pads cells."""
    file.write_bytes(("\ufeff" + HEADER + LINES.replace(",80,", ", 80 ,")).replace("\n", "\r\n").encode())

    batch = await john(str(file), None, None).poll(Known())

    assert [deal.deal_id for deal in batch.deals] == ["deal-1", "deal-2"]
    assert batch.refused == ()


async def test_a_line_that_is_deleted_is_a_deal_that_is_gone(file, model):
    """The file is the whole truth of its origin, with or without a new line."""
    before, _ = await revenue(model, john(str(file), None, None))
    file.write_text(HEADER + LINES.splitlines()[1])

    after, _ = await revenue(model, john(str(file), None, None))

    assert (before, after) == (Decimal("1280.50"), 80)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("deal-7,abc,USD,2026-11-01,won,,\n", "deal deal-7: amount is 'abc', should be a number"),
        ("deal-7,1\n", "deal deal-7: currency is '', only USD"),
        (",1,USD,2026-11-01,won,,\n", "deal number 3: id is '', should be a text"),
        ("deal-7,1,USD,01/11/2026,won,,\n", "deal deal-7: closed_date is '01/11/2026', should be a time"),
    ],
)
async def test_a_bad_line_is_named_and_the_others_count(file, line, reason):
    """By its id, else by its place."""
    file.write_text(HEADER + LINES + line)

    batch = await john(str(file), None, None).poll(Known())

    assert len(batch.deals) == 2
    assert str(batch.refused[0]).startswith(reason)


async def test_a_longer_line_than_the_first_counts_by_its_columns(file):
    """A comma too many at the end of a line is what spreadsheets do."""
    file.write_text(HEADER + "deal-7,1,USD,2026-11-01,won,,x,,,\n")

    batch = await john(str(file), None, None).poll(Known())

    assert [deal.deal_id for deal in batch.deals] == ["deal-7"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,amount,currency\n", "has no column closed_date, status in its first line"),
        (b"", "has no column id, amount, currency, closed_date, status in its first line"),
        (HEADER.encode() + b"deal-1,1,USD,2026-11-01,won,,caf\xe9\n", "is not a CSV file in UTF-8"),
        (HEADER.encode() + b'deal-1,"' + b"x" * 200_000, "is not a CSV file in UTF-8"),
    ],
)
async def test_a_file_that_cannot_be_read_whole_is_named(file, content, reason):
    """Half a file is not believed: the last good list stands."""
    file.write_bytes(content)

    with pytest.raises(SourceError, match=f"john: .*deals.csv {reason}"):
        await john(str(file), None, None).poll(Known())


async def test_a_file_that_is_not_there_is_named(tmp_path):
    """For instance while a spreadsheet saves it."""
    with pytest.raises(
        SourceError, match=r"john: .*deals.csv cannot be read \(No such file or directory\); is PNL_JOH"
    ):
        await john(str(tmp_path / "deals.csv"), None, None).poll(Known())


async def test_a_file_that_is_no_list_of_deals_is_not_read_into_memory(tmp_path):
    """A wrong path may lead to a disk image."""
    with (tmp_path / "deals.csv").open("wb") as file:
        file.truncate(65 << 20)

    with pytest.raises(SourceError, match="is larger than 64 MB"):
        await john(str(tmp_path / "deals.csv"), None, None).poll(Known())
