"""Costs are the bill where there is one, an estimate by list price where there is none yet, and never a guess."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from aiohttp import web
from pydantic import SecretStr
from wire import SONNET

from pnl.errors import BadRow, SourceError, SourceRefused
from pnl.model import PnLModel
from pnl.records import Cost, CostDay, Known
from pnl.simulator.nouns import DAY
from pnl.simulator.spending import bill
from pnl.sources.anthropic import Anthropic, estimate, price_list

BASE = "/v1/organizations"
BILLS = f"{BASE}/cost_report"
USAGE = f"{BASE}/usage_report/messages"
TODAY = date(2026, 11, 22)
YESTERDAY = date(2026, 11, 21)
LINE = {"amount": "123.78912", "currency": "USD", "description": "Claude Sonnet 5.5 Usage - Input Tokens"}


def organisation(sim, transport, time, **more):
    return Anthropic(sim.anthropic_url, SecretStr(sim.admin_key), transport, now=time, **more)


@pytest.fixture
def anthropic(simulator, transport, clock):
    return organisation(simulator, transport, clock)


def report(days, **more):
    """A page of daily buckets: day to rows."""
    data = [{"starting_at": f"{day}T00:00:00Z", "results": rows} for day, rows in days.items()]
    return {"data": data, "has_more": False, "next_page": None, **more}


def saying(days, **more):
    return lambda _: web.json_response(report(days, **more))


def asked_of(sim, path):
    return sim.requests[f"GET {path}"]


def list_price_usd(world, day, now):
    """What the world used on a UTC day, as the simulator prices it, apart from our own price list."""
    start = (day - date(1970, 1, 1)).days * DAY
    cents = (line.cents for line in bill(world.tokens(start, start + DAY, now), start))
    return sum(cents, Decimal(0)) / 100


async def test_finished_days_are_billed_and_today_is_estimated(anthropic, small_business, clock):
    """Each day once, to the last digit; the estimate is apart and says what it is."""
    batch = await anthropic.poll(Known())

    days = {day.day: day for day in batch.cost_days}
    assert len(days) == len(batch.cost_days)
    assert {day.day for day in batch.cost_days if day.is_estimate} == {TODAY}
    assert all(day.total_usd == list_price_usd(small_business, day.day, clock()) for day in batch.cost_days)
    assert len([day for day in batch.cost_days if day.total_usd]) > 60
    assert (batch.refused, batch.error) == ((), None)
    assert batch.cursors == {"billed_to": f"{YESTERDAY}"}


async def test_cents_become_dollars_to_the_last_digit(anthropic, simulator):
    """123.78912 cents are 1.2378912 dollars: reading cents as dollars made figures a hundredfold elsewhere."""
    simulator.answers[BILLS] = saying({YESTERDAY: [LINE]})
    simulator.answers[USAGE] = saying({})

    batch = await anthropic.poll(Known())

    line = Cost("anthropic", YESTERDAY, LINE["description"], Decimal("1.2378912"))
    assert batch.cost_days == (CostDay("anthropic", YESTERDAY, (line,)),)


def test_the_worked_example_is_estimated_to_the_cent():
    """Sonnet 5.5: 200 + 50 + 30 + 100 cents; half of it in a batch, a tenth more in the US, a cent a search."""
    prices = price_list()

    assert estimate(SONNET, TODAY, prices) == Decimal("3.80")
    assert estimate({**SONNET, "service_tier": "batch"}, TODAY, prices) == Decimal("1.90")
    assert estimate({**SONNET, "inference_geo": "us"}, TODAY, prices) == Decimal("4.18")
    assert estimate({**SONNET, "server_tool_use": {"web_search_requests": 10}}, TODAY, prices) == Decimal("3.90")


def test_a_price_is_the_one_of_its_day():
    """Cached reads of Sonnet 5.5 cost twice as much before 2026-10-08."""
    read_only = {"model": "claude-sonnet-5-5", "cache_read_input_tokens": 1_000_000}

    assert estimate(read_only, date(2026, 10, 7), price_list()) == Decimal("0.20")
    assert estimate(read_only, date(2026, 10, 8), price_list()) == Decimal("0.10")


@pytest.mark.parametrize(
    ("model", "input_usd"),
    [
        ("claude-opus-5", 5),
        ("claude-opus-5-20260101", 5),
        ("claude-opus-5-latest", 5),
        ("claude-opus-5-5", 4),
        ("claude-opus-5-5-20260922", 4),
        ("claude-opus-5-6", None),
        ("claude-opus", None),
        ("my-claude-opus-5", None),
    ],
)
def test_a_release_date_behind_a_name_is_the_same_model_and_a_version_is_another(model, input_usd):
    """`claude-opus-5-20260101` is an Opus 5, `claude-opus-5-6` is not known."""
    price = price_list().of(model, TODAY)

    assert (price and price.per_million["input"]) == input_usd


async def test_a_model_without_a_price_is_named_and_never_zero(anthropic, simulator):
    """Its tokens are left out until they are billed, and the total says so."""
    new = {**SONNET, "model": "claude-opus-9"}
    simulator.answers[USAGE] = saying({TODAY: [new, SONNET]})

    batch = await anthropic.poll(Known())

    today = next(day for day in batch.cost_days if day.day == TODAY)
    assert today.total_usd == Decimal("3.80")
    assert len(batch.refused) == 1
    assert str(batch.refused[0]) == (
        f"usage of {TODAY}, model claude-opus-9: no list price is known for it, "
        "so its use (4,300,000) is left out until it is billed"
    )


async def test_a_model_that_was_not_used_needs_no_price(anthropic, simulator):
    """A row of zeros says that there was nothing."""
    simulator.answers[USAGE] = saying({TODAY: [{"model": "claude-opus-9", "output_tokens": 0}, {"model": None}]})

    batch = await anthropic.poll(Known())

    assert batch.refused == ()


def test_tokens_that_are_no_number_are_refused_and_not_taken_as_none():
    """Unknown is not zero."""
    with pytest.raises(BadRow, match="output_tokens is 'many', should be a number"):
        estimate({**SONNET, "output_tokens": "many"}, TODAY, price_list())


def test_a_committed_tier_is_not_estimated():
    """Priority tokens are paid for in advance and are in no cost report, so an estimate would never be replaced."""
    assert estimate({**SONNET, "service_tier": "priority"}, TODAY, price_list()) == 0


async def test_a_bill_replaces_the_estimate_of_its_day(anthropic, simulator, small_business, clock):
    """At three in the morning yesterday is not billed yet; once it is, nothing of the estimate is left."""
    model = PnLModel(now=clock).read_from([anthropic])
    clock.advance(hours=-6)
    await model.pull("anthropic")
    before = model.cost_days["anthropic", YESTERDAY]
    clock.advance(hours=6)

    await model.pull("anthropic")

    after = model.cost_days["anthropic", YESTERDAY]
    assert (before.is_estimate, after.is_estimate) == (True, False)
    assert before.total_usd == after.total_usd == list_price_usd(small_business, YESTERDAY, clock())
    assert asked_of(simulator, BILLS) > 1


async def test_a_day_that_is_revised_is_read_again(anthropic, simulator):
    """Bills change in place for some days: the last three are asked for at every poll."""
    asked = []

    def answer(request):
        asked.append(request.query["starting_at"])
        amount = "200" if len(asked) > 1 else "100"
        return web.json_response(report({TODAY - timedelta(days=3): [{**LINE, "amount": amount}], YESTERDAY: [LINE]}))

    simulator.answers[BILLS] = answer
    first = await anthropic.poll(Known())

    second = await anthropic.poll(Known(first.cursors))

    assert [first.cost_days[0].total_usd, second.cost_days[0].total_usd] == [1, 2]
    assert asked[1] == "2026-11-18T00:00:00Z"


async def test_the_first_year_takes_thirteen_requests_and_a_later_poll_two(anthropic, simulator):
    """365 days in pages of 31, and one page of usage."""
    first = await anthropic.poll(Known())
    at_first = sum(simulator.requests.values())
    later = await anthropic.poll(Known(first.cursors))

    assert at_first <= 13
    assert sum(simulator.requests.values()) - at_first <= 2
    assert later.error is None


async def test_pages_are_followed_to_the_end(anthropic, simulator):
    """`next_page` goes back as `page`, with the same question."""
    asked = []

    def answer(request):
        asked.append((request.query.get("page"), request.query.getall("group_by[]"), request.query["limit"]))
        is_first = len(asked) == 1
        day = YESTERDAY - timedelta(days=is_first)
        return web.json_response(report({day: [LINE]}, has_more=is_first, next_page="page_7" if is_first else None))

    simulator.answers[BILLS] = answer
    batch = await anthropic.poll(Known())

    assert asked == [(None, ["description"], "31"), ("page_7", ["description"], "31")]
    assert {YESTERDAY, YESTERDAY - timedelta(days=1)} <= {day.day for day in batch.cost_days if not day.is_estimate}


async def test_a_page_that_comes_again_is_not_used_and_no_estimate_replaces_it(anthropic, simulator):
    """The bill could not be read, so an estimate must not take its place."""
    simulator.answers[BILLS] = saying({YESTERDAY: [LINE]}, has_more=True, next_page="page_7")

    batch = await anthropic.poll(Known())

    assert batch.cost_days == ()
    assert batch.error.startswith("anthropic: cost_report repeats its cursor 'page_7'")


async def test_the_cost_report_is_never_asked_to_start_today(transport, simulator, clock):
    """It answers that with 400; a start of today asks for usage alone."""
    since_today = organisation(simulator, transport, clock, since=clock())
    batch = await since_today.poll(Known())

    assert asked_of(simulator, BILLS) == 0
    assert batch.error is None

    await since_today.poll(Known({"billed_to": f"{TODAY + timedelta(days=5)}"}))
    assert asked_of(simulator, BILLS) == 1


async def test_both_header_styles_are_spoken(anthropic, simulator):
    """A server that only takes bearer tokens is understood on the first poll, and asked rightly from then on."""

    def bearer_only(days):
        def answer(request):
            if request.headers.get("Authorization") != f"Bearer {simulator.admin_key}":
                return web.json_response({"type": "error", "error": {"type": "authentication_error"}}, status=401)
            return web.json_response(report(days))

        return answer

    simulator.answers[BILLS] = bearer_only({YESTERDAY: [LINE]})
    simulator.answers[USAGE] = bearer_only({TODAY: [SONNET]})

    first = await anthropic.poll(Known())
    asked = sum(simulator.requests.values())
    second = await anthropic.poll(Known())

    assert first == second
    assert first.error is None
    assert [day.total_usd for day in first.cost_days] == [Decimal("1.2378912"), Decimal("3.80")]
    assert (asked, sum(simulator.requests.values())) == (4, 6)


async def test_a_wrong_key_is_what_the_error_names_without_showing_it(simulator, transport, clock):
    """An ordinary API key is the usual mistake."""
    source = Anthropic(simulator.anthropic_url, SecretStr("canary-4711"), transport, now=clock)

    with pytest.raises(SourceRefused, match="PNL_ANTHROPIC_ADMIN_KEY should be an Admin key") as failure:
        await source.poll(Known())

    assert "canary-4711" not in str(failure.value)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "the key may not read costs"), (404, "is PNL_ANTHROPIC_URL right?"), (400, "no"), (529, "no")],
)
async def test_a_refusal_says_what_to_do(anthropic, simulator, status, advice):
    """By status where it is known, else in the words of the provider."""
    for path in (BILLS, USAGE):
        simulator.answers[path] = lambda _: web.json_response({"error": {"message": "no"}}, status=status)

    with pytest.raises(SourceError, match=f"answered HTTP {status}: {advice[:-1]}"):
        await anthropic.poll(Known())


async def test_usage_that_cannot_be_read_leaves_the_bills(anthropic, simulator):
    """A bill stands without its estimate."""
    simulator.answers[USAGE] = lambda _: web.json_response({}, status=500)
    simulator.answers[BILLS] = saying({YESTERDAY: [LINE, {**LINE, "amount": "NaN"}]})

    batch = await anthropic.poll(Known())

    assert [(day.day, day.is_estimate) for day in batch.cost_days] == [(YESTERDAY, False)]
    assert "usage_report" in batch.error


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount": "NaN"}, "amount is 'NaN', should be a finite number"),
        ({"amount": None}, "amount is missing"),
        ({"currency": "EUR"}, "currency is 'EUR', only USD can be added up"),
    ],
)
async def test_a_bad_line_of_a_bill_is_named_and_read_again(anthropic, simulator, change, reason):
    """The lines beside it count; the cursor stays."""
    simulator.answers[BILLS] = saying({YESTERDAY: [LINE, {**LINE, "description": "Odd", **change}]})
    known = Known({"billed_to": "2026-11-10"})

    batch = await anthropic.poll(known)

    billed = next(day for day in batch.cost_days if not day.is_estimate)
    assert billed.total_usd == Decimal("1.2378912")
    assert str(batch.refused[0]).startswith(f"cost of {YESTERDAY} Odd: {reason}")
    assert batch.cursors == known.cursors


@pytest.mark.parametrize("bucket", [{}, {"starting_at": "NaN", "results": []}, 7, {"starting_at": f"{TODAY}"}])
async def test_a_bucket_without_a_day_or_rows_is_no_report(anthropic, simulator, bucket):
    """What nobody can place in time is not added to any day."""
    for path in (BILLS, USAGE):
        simulator.answers[path] = lambda _: web.json_response({"data": [bucket], "has_more": False})

    with pytest.raises(SourceError, match=r"^anthropic: "):
        await anthropic.poll(Known())
