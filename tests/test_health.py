"""The health of each source: in plain words, from what is known, and nothing in it is a secret or runs as script."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from aiohttp import web

from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import SourceError
from pnl.model import PnLModel
from pnl.records import Account, Batch, Cost, CostDay, Deal, Fill, Holding, Refused, Result, Settlement
from pnl.simulator import LivingMarket, Simulator
from pnl.simulator.demo import demo_settings
from pnl.sources.turn import Pace
from pnl.stream import fields_of
from pnl.views import HealthView
from pnl.views.health import BREAKERS, MOST_REFUSED, STATES, Health, coverage, health_html
from pnl.views.lines import as_cells
from tests.test_engine import next_snapshot
from tests.test_model import Told, model_of

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
ZONE = ZoneInfo("America/New_York")
HOSTILE = "<img src=x onerror=alert(1)>\"'\tb\nc"
ALL = ("kalshi", "anthropic", "john")


def fill(number=1, ticker="KX-A", at=NOW):
    price = Decimal("0.4")
    return Fill(f"f{number}", ticker, "yes", Decimal(10), price, Decimal(0), is_taker=True, filled_at=at)


def settlement(ticker="KX-A", at=NOW):
    ten, nothing = Decimal(10), Decimal(0)
    return Settlement(ticker, "KX", Result.YES, ten, Decimal(4), nothing, nothing, ten, nothing, None, at)


def day(number, *, is_estimate=False):
    when = date(2026, 11, number)
    line = Cost("anthropic", when, "tokens", Decimal(1), is_estimate)
    return CostDay("anthropic", when, (line,), is_estimate=is_estimate)


def deal(number):
    return Deal("john", f"d{number}", Decimal(5), "paid", date(2026, 10, number), NOW)


async def told(*sources, polls=1, others=(), **known):
    """A model that polled so often, and the texts of its sources by part."""
    model = model_of(*sources, clock=lambda: NOW, others=others)
    for _ in range(polls):
        await model.poll()
    return model, Health(model, ZONE, ALL, **known).texts()


def parts(texts, name="kalshi"):
    prefix = f"health.{name}."
    return {key.removeprefix(prefix): text for key, text in texts.items() if key.startswith(prefix)}


async def test_every_name_is_there_from_the_start():
    """Before the first snapshot, with no source set up, and with all of them."""
    before = Health(PnLModel(), ZONE, ALL).texts()
    _, after = await told(Told("kalshi", Batch(fills=(fill(),))), others=["anthropic", "john"])

    assert before.keys() == after.keys()
    assert {parts(before, name)["state"] for name in ALL} == {STATES["waiting"]}
    assert parts(after, "john")["state"] == STATES["not_configured"]


async def test_what_there_is_of_a_source_is_counted_by_kind():
    """With the first and the last of each; settlements of unknown fills included."""
    first, last = NOW - timedelta(days=40), NOW - timedelta(hours=12)
    trades = Batch(
        fills=(fill(1, at=first), fill(2, "KX-B", at=last), fill(3, "KX-B", at=first + timedelta(days=1))),
        settlements=(settlement(at=last + timedelta(hours=1)), settlement("KX-OLD", at=first - timedelta(days=5))),
    )
    costs = Batch(cost_days=(day(19), day(20), day(21, is_estimate=True), day(22, is_estimate=True)))
    sources = Told("kalshi", trades), Told("anthropic", costs), Told("john", Batch(deals=(deal(1), deal(9))))

    _, texts = await told(*sources)

    assert as_cells(parts(texts)["rows"]) == [
        ["fills", "3", "2026-10-13 10:00", "2026-11-21 21:00"],
        ["settlements", "2", "2026-10-08 10:00", "2026-11-21 22:00"],
    ]
    assert parts(texts)["coverage"] == "2026-10-08 – 2026-11-21"
    assert as_cells(parts(texts, "anthropic")["rows"]) == [
        ["days billed", "2", "2026-11-19", "2026-11-20"],
        ["days estimated", "2", "2026-11-21", "2026-11-22"],
    ]
    assert parts(texts, "anthropic")["billed"] == "2026-11-20 (UTC)"
    assert as_cells(parts(texts, "john")["rows"]) == [["deals", "2", "2026-10-01", "2026-10-09"]]


def test_the_ends_of_the_books_are_those_of_all_fills():
    """Quick, and the same as looking at every one."""
    model = PnLModel()
    fills = [fill(n, f"KX-{n % 3}", NOW + timedelta(minutes=(n * 7) % 31)) for n in range(30)]
    model.ledger.add(fills, [settlement("KX-0", NOW + timedelta(days=1))])

    found = coverage(model, "kalshi")[0]

    instants = sorted(each.filled_at for each in fills)
    assert (found.count, found.first, found.last) == (30, instants[0], instants[-1])


async def test_an_error_is_told_with_its_time_also_once_it_is_over():
    """What was wrong last night is a reason to look."""
    model = model_of(Told("john", Batch(), SourceError("john: HTTP 500"), Batch()), clock=lambda: NOW)
    health = Health(model, ZONE, ["john"])
    said = []
    for _ in range(3):
        await model.poll()
        said.append(parts(health.texts(), "john")["error"])

    assert said == ["none since the start", "john: HTTP 500", "none now; the last, 2026-11-22 09:00:00: john: HTTP 500"]


@pytest.mark.parametrize("breaker", BREAKERS)
async def test_when_a_source_is_asked_next_and_what_its_breaker_lets_through(breaker):
    """In the reporting zone, and as an instant for the page to count down to."""
    paces = {"john": Pace(NOW + timedelta(seconds=7), breaker)}

    _, texts = await told(Told("john", Batch()), paces=lambda: paces)

    found = parts(texts, "john")
    assert (found["next"], found["next_at"]) == ("09:00:07", "2026-11-22T14:00:07+00:00")
    assert found["breaker"] == BREAKERS[breaker]
    assert found["polls"] == "every 2 s"


async def test_rows_that_were_set_aside_are_named_with_their_reasons():
    """The first of them, and how many there are."""
    refused = tuple(Refused("fill", f"f{n}", HOSTILE) for n in range(MOST_REFUSED + 5))

    _, texts = await told(Told("kalshi", Batch(refused=refused)))

    found = parts(texts)
    assert found["refused"] == "25"
    assert len(as_cells(found["refused.rows"])) == MOST_REFUSED
    assert as_cells(found["refused.rows"])[0] == ["fill", "f0", " ".join(HOSTILE.split())]


async def test_a_drift_is_told_in_money_and_in_words():
    """What differs, by market; of the other sources there is nothing to compare."""
    clock = [NOW]
    account = Account(positions={"KX-A": Holding(Decimal(12), Decimal(4), Decimal(0), Decimal(0))})
    model = model_of(Told("kalshi", Batch(fills=(fill(),), account=account)), clock=lambda: clock[0])
    health = Health(model, ZONE, ALL)
    await model.poll()
    clock[0] += timedelta(seconds=10)
    await model.poll()

    texts = health.texts()

    assert parts(texts)["drift"] == "$0.80"
    assert parts(texts)["drift.state"] == "differs from its own figures, and goes on to"
    assert parts(texts)["drift.lines"].startswith("KX-A: Kalshi says 12.00 YES, the records here make 10.00 YES")
    assert parts(texts, "john")["drift"] == ""


async def test_texts_are_made_once_for_a_snapshot_and_records_counted_once_for_other_records():
    """They are asked for whenever anything is sent."""
    model = model_of(Told("kalshi", Batch(fills=(fill(),)), Batch(), Batch(fills=(fill(2),))), clock=lambda: NOW)
    health = Health(model, ZONE, ["kalshi"])
    await model.poll()
    first, counted = health.texts(), health._coverage
    assert health.texts() is first

    await model.poll()
    assert health.texts() is not first
    assert health._coverage is counted

    await model.poll()
    assert as_cells(parts(health.texts())["rows"])[0][1] == "2"


async def test_whatever_comes_from_outside_is_text_in_the_drawer():
    """An error, a reason, a name of a source."""
    bad = SourceError(HOSTILE)
    model = model_of(Told(HOSTILE, Batch(refused=(Refused("row", HOSTILE, HOSTILE),)), bad), clock=lambda: NOW)
    await model.poll()
    await model.poll()
    texts = Health(model, ZONE, [HOSTILE]).texts() | fields_of(model.snapshot)

    html = health_html(texts, [HOSTILE])

    assert "<img" not in html
    assert html.count("&lt;img") >= 4
    assert "<dialog" in html
    assert "data-sync" in html


async def test_the_health_in_a_cell_follows_its_model():
    """Every source where it stands, without a button that has no server behind it."""
    model = model_of(Told("kalshi", Batch(fills=(fill(),))), clock=lambda: NOW, others=["john"])
    view = HealthView(model)
    pane = view.__panel__()
    assert STATES["waiting"] in pane.object

    await model.poll()

    assert STATES["fresh"] in pane.object
    assert STATES["not_configured"] in pane.object
    assert 'data-sync="' not in pane.object
    assert pane.get_root()


async def test_a_source_that_is_wanted_is_polled_at_once_and_not_twice(tmp_path):
    """Its own turn would come in an hour."""
    async with Simulator(LivingMarket(days=2)) as simulator:
        settings = hourly_polls(demo_settings(load_settings(data_dir=tmp_path), simulator))
        async with Engine(settings) as engine:
            assert not engine.poll_now("john")
            engine.start()
            first = await next_snapshot(engine.model, is_wanted=lambda shown: shown.complete)

            assert engine.poll_now("john")
            assert not engine.poll_now("john")
            assert not engine.poll_now("nobody")

            def is_newer(shown):
                return good_at(shown, "john") > good_at(first, "john")

            later = await next_snapshot(engine.model, is_wanted=is_newer)
            paces = engine.paces

    assert good_at(later, "kalshi") == good_at(first, "kalshi")
    assert {name: pace.breaker for name, pace in paces.items()} == dict.fromkeys(ALL, "closed")
    assert all(pace.next_at > later.taken_at + timedelta(minutes=50) for pace in paces.values())


def hourly_polls(settings):
    """The same settings, with an hour between two polls of any source."""
    return settings.model_copy(update={f"{name}_poll_s": 3600.0 for name in ALL})


def good_at(snapshot, name):
    return next(reading.as_of for reading in snapshot.sources if reading.source == name)


async def test_no_key_is_in_any_text_even_where_the_server_sends_it_back(tmp_path):
    """Its answer is quoted in the error, but for what went out as a key."""
    async with Simulator(LivingMarket(days=2)) as simulator:
        settings = demo_settings(load_settings(data_dir=tmp_path), simulator)

        def echo(request):
            said = " ".join(f"{name} {value}" for name, value in request.headers.items())
            return web.json_response({"error": {"type": "x", "message": said, "code": said}}, status=401)

        for path in ("/trade-api/v2/portfolio/fills", "/v1/organizations/cost_report", "/deals"):
            simulator.answers[path] = echo
        async with Engine(settings) as engine:
            await engine.sync()
            texts = Health(engine.model, ZONE, ALL, paces=lambda: engine.paces).texts()

    said = "\n".join(texts.values())
    assert "401" in said
    secrets = (simulator.admin_key, simulator.john_token, simulator.key_id)
    assert not [secret for secret in secrets if secret in said]
