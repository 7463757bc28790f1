"""The simulator answers as the three APIs do, down to the published schema of every Kalshi reply."""

import base64
import stat
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from operator import getitem
from pathlib import Path

import aiohttp
import jsonschema
import pytest
import yaml
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding

from pnl.errors import SimulatorError
from pnl.simulator import LivingMarket, RecordedAccount, Simulator
from pnl.simulator.spending import tokens_used

SHARED = Path(__file__).parents[2] / "shared"
SPEC = SHARED / "specs" / "kalshi_openapi_3.34.yaml"
RECORDING = SHARED / "recorded_account"
NOW = datetime(2026, 11, 22, 9, 30, 0, 250_000, tzinfo=UTC)
TODAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
ONE_PAGE = ("/portfolio/balance", "/historical/cutoff", "/exchange/status", "/exchange/user_data_timestamp")
ONE_PAGE += ("/account/limits", "/account/endpoint_costs")
PAGED = {
    "/portfolio/fills": "fills",
    "/portfolio/positions": "market_positions",
    "/portfolio/positions?settlement_status=all": "market_positions",
    "/portfolio/settlements": "settlements",
    "/portfolio/orders": "orders",
    "/portfolio/deposits": "deposits",
    "/portfolio/withdrawals": "withdrawals",
    "/markets": "markets",
    "/historical/fills": "fills",
    "/historical/positions": "market_positions",
    "/historical/markets": "markets",
}
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared folder with specs and recording is absent")


class Client:
    """Asks a simulator as a signed-in user does."""

    def __init__(self, sim, session):
        self.sim = sim
        self.session = session
        self.now = NOW
        self.key = serialization.load_pem_private_key(sim.private_key_path.read_bytes(), None)

    def headers(self, path, **changes):
        """Signed headers for a path; None leaves one out."""
        stamp = str(int(self.now.timestamp() * 1000))
        message = f"{stamp}GET/trade-api/v2{path.split('?')[0]}".encode()
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            signature = self.key.sign(message)
        else:
            signature = self.key.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        made = {"KEY": self.sim.key_id, "TIMESTAMP": stamp, "SIGNATURE": base64.b64encode(signature).decode()}
        return {f"KALSHI-ACCESS-{name}": value for name, value in {**made, **changes}.items() if value is not None}

    async def get(self, url, headers=None, **query):
        """Status and body of any address."""
        async with self.session.get(url, params=query, headers=headers) as answer:
            return answer.status, await answer.json()

    async def kalshi(self, path, **query):
        """The body of a signed request that must succeed."""
        status, body = await self.get(self.sim.kalshi_url + path, self.headers(path), **query)
        assert status == 200, body
        return body

    async def kalshi_pages(self, path, limit=1000):
        """The bodies of all pages."""
        cursor, join = "", "&" if "?" in path else "?"
        while True:
            most = 500 if path in ("/portfolio/deposits", "/portfolio/withdrawals") else 1000
            body = await self.kalshi(f"{path}{join}limit={min(limit, most)}&cursor={cursor}")
            yield body
            if not (cursor := body["cursor"]):
                return

    async def kalshi_rows(self, path, limit=1000):
        """The rows of all pages."""
        return [row async for page in self.kalshi_pages(path, limit) for row in page[PAGED[path]]]

    async def anthropic(self, path, query, headers=None):
        """Status and body of a report, asked for in the older style unless headers are given."""
        old_style = {"x-api-key": self.sim.admin_key, "anthropic-version": "2023-06-01"}
        url = f"{self.sim.anthropic_url}/v1/organizations/{path}"
        return await self.get(url, old_style if headers is None else headers, **query)

    async def bearer(self, url, **query):
        """Status and body of a revenue route."""
        return await self.get(url, {"Authorization": f"Bearer {self.sim.john_token}"}, **query)


@asynccontextmanager
async def serving(world, *, limited=False, now=lambda: NOW, key_type="ed25519", **options):
    options |= {"limited": limited, "now": now, "key_type": key_type}
    async with Simulator(world, **options) as sim, aiohttp.ClientSession() as session:
        yield Client(sim, session)


@pytest.fixture(scope="session")
def business():
    """A world is a function of the instant, so all tests may ask the same one."""
    return LivingMarket(seed=1)


@pytest.fixture(scope="session")
def recording():
    return RecordedAccount(RECORDING)


@pytest.fixture
async def living(business):
    async with serving(business) as client:
        yield client


@pytest.fixture
async def recorded(recording):
    async with serving(recording) as client:
        yield client


@pytest.fixture(scope="session")
def replies():
    """For a path, the validator of its 200 reply."""
    document = yaml.load(SPEC.read_text(), yaml.CSafeLoader)  # the C loader: 8 times faster

    def validator(path):
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        return jsonschema.Draft202012Validator(_plain(schema, document))

    return {path: validator(path) for path in _paths()}


_KEYWORDS = {"type", "enum", "required", "items", "allOf", "anyOf", "oneOf", "minimum", "maximum", "pattern"}


def _paths():
    return {*ONE_PAGE, *(path.split("?")[0] for path in PAGED), "/markets/{ticker}", "/historical/markets/{ticker}"}


# References put in place, which is 10 times faster to validate; OpenAPI 3.0 says `nullable` where JSON Schema has null.
def _plain(node, document):
    if isinstance(node, list):
        return [_plain(each, document) for each in node]
    if not isinstance(node, dict):
        return node
    # A property may be called "description" too; then its value is a schema and not words.
    kept = {key: value for key, value in node.items() if key in _KEYWORDS or isinstance(value, dict)}
    schema = {key: _plain(value, document) for key, value in kept.items()}
    if "$ref" in node:
        schema |= _plain(reduce(getitem, node["$ref"].split("/")[1:], document), document)
    return {"anyOf": [schema, {"type": "null"}]} if node.get("nullable") is True else schema


def lifetime_pnl(row):
    pairs = min(Decimal(row["yes_count_fp"]), Decimal(row["no_count_fp"]))
    paid = Decimal(row["yes_total_cost_dollars"]) + Decimal(row["no_total_cost_dollars"]) + Decimal(row["fee_cost"])
    return Decimal(row["revenue"]) / 100 + pairs - paid


async def check_all_pages(client, replies):
    for path in ONE_PAGE:
        replies[path].validate(await client.kalshi(path))
    for path in PAGED:
        async for body in client.kalshi_pages(path):
            replies[path.split("?")[0]].validate({name: distinct(rows) for name, rows in body.items()})


def distinct(rows):
    """One row of each shape: the schema looks at names, types and the words of enumerations, so the rest pass too."""
    if isinstance(rows, str):
        return rows
    return list(
        {tuple((name, _seen_by_schema(name, value)) for name, value in row.items()): row for row in rows}.values()
    )


def _seen_by_schema(name, value):
    is_word = name in {"type", "side", "action"} or name.endswith(("status", "result", "_side", "_type"))
    return repr(value) if is_word or isinstance(value, list) else type(value)


@needs_shared
async def test_every_reply_of_the_living_market_fits_the_published_schema(living, replies):
    """All routes, all pages: the official description of the API accepts them."""
    await check_all_pages(living, replies)

    for path in ("/markets", "/historical/markets"):
        ticker = (await living.kalshi(path, limit=1))["markets"][0]["ticker"]
        replies[f"{path}/{{ticker}}"].validate(await living.kalshi(f"{path}/{ticker}"))


@needs_shared
async def test_every_reply_of_the_recorded_account_fits_the_published_schema(recorded, replies):
    """The same for the recording."""
    await check_all_pages(recorded, replies)


@needs_shared
async def test_the_recorded_account_adds_up_to_its_known_sums(recorded):
    """5,329 fills over both tiers, 2,938 settlements, and a lifetime loss of 9,002.8247 dollars, exactly."""
    fills = await recorded.kalshi_rows("/portfolio/fills") + await recorded.kalshi_rows("/historical/fills")
    settlements = await recorded.kalshi_rows("/portfolio/settlements")
    balance = await recorded.kalshi("/portfolio/balance")
    deposited = sum(row["amount_cents"] for row in await recorded.kalshi_rows("/portfolio/deposits"))

    assert len({row["fill_id"] for row in fills}) == len(fills) == 5329
    assert len(settlements) == 2938
    assert sum(map(lifetime_pnl, settlements)) == Decimal("-9002.824700")
    assert Decimal(balance["balance_dollars"]) == Decimal(deposited) / 100 - Decimal("9002.824700")


@needs_shared
async def test_a_recorded_row_is_served_verbatim(recorded):
    """Every column of the files comes back as the same text."""
    for path, file in (("/portfolio/settlements", "settlements.csv"), ("/historical/fills", "fills.csv")):
        header, *lines = (RECORDING / file).read_text().splitlines()
        rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
        known = {(row["ticker"], row.get("fill_id")): row for row in rows}
        for served in await recorded.kalshi_rows(path):
            row = known[served["ticker"], served.get("fill_id")]
            assert {name: str(served[name]).replace("True", "true").replace("False", "false") for name in row} == row


@needs_shared
def test_a_replay_shows_rows_as_their_recorded_time_passes():
    """At 3,600 times the speed, two hours of the recording pass in two seconds, then it ends complete."""
    clock = [NOW]
    world = RecordedAccount(RECORDING, speed=3600)
    assert len(world.fills(NOW)) == 1

    clock[0] += timedelta(seconds=2)
    fills, positions = world.fills(clock[0]), world.open_positions(clock[0])

    assert 1 < len(fills) < 5329
    assert fills[-1].at - fills[0].at <= 7_200_000_000
    assert {position.market.ticker for position in positions} <= {fill.ticker for fill in fills}
    assert len(world.fills(NOW + timedelta(hours=1))) == 5329


@needs_shared
def test_a_damaged_recording_is_named_by_file_line_and_column(tmp_path):
    """A person can find the bad value without a debugger."""
    for name in ("fills.csv", "settlements.csv"):
        (tmp_path / name).write_text("\n".join((RECORDING / name).read_text().splitlines()[:3]))
    good = (tmp_path / "fills.csv").read_text()
    for damage, words in (
        (good.replace("38.10", "many"), "fills.csv line 2: count_fp makes no sense: 'many'"),
        (good.replace("38.10", "38.105"), "fills.csv line 2: count_fp makes no sense: '38.105'"),
        (good.replace("count_fp", "count"), "fills.csv line 1: column missing: count_fp"),
        (good.replace("2026-05-25T07:56", "yesterday"), "fills.csv line 3: created_time makes no sense"),
        (None, "fills.csv: cannot be read"),
    ):
        (tmp_path / "fills.csv").unlink()
        if damage is not None:
            (tmp_path / "fills.csv").write_text(damage)
        with pytest.raises(SimulatorError, match=words):
            RecordedAccount(tmp_path)
        (tmp_path / "fills.csv").write_text(good)


def test_the_same_seed_gives_the_same_world_whenever_it_is_started():
    """A world started an hour later goes on where the first one would be: same ids, same rows."""
    later = NOW + timedelta(hours=1)
    first, second, other = LivingMarket(seed=7), LivingMarket(seed=7), LivingMarket(seed=8)
    before = list(first.fills(NOW))

    grown, restarted = first.fills(later), second.fills(later)

    assert grown == restarted
    assert grown[: len(before)] == before
    assert first.settlements(later) == second.settlements(later)
    assert first.balance(later) == second.balance(later)
    assert first.deals(later) == second.deals(later)
    assert other.fills(later) != grown


def test_asking_in_small_steps_or_in_one_leap_shows_the_same_world():
    """What is known at an instant does not depend on what was asked before."""
    steps, leap = LivingMarket(seed=3), LivingMarket(seed=3)
    leap.balance(NOW)
    leap.balance(NOW + timedelta(days=2))
    for hours in range(48):
        now = NOW + timedelta(hours=hours)
        assert steps.settled_positions(now) == leap.settled_positions(now)
        assert steps.markets(now) == leap.markets(now)
        assert steps.fills(now) == leap.fills(now)
        assert steps.balance(now) == leap.balance(now)


def test_a_restart_on_another_day_loses_no_history():
    """The first day moves in steps of 30 days, not with the clock, so that totals do not drift from day to day."""
    now = NOW + timedelta(days=3)
    first, second = LivingMarket(seed=4), LivingMarket(seed=4)
    first.balance(NOW)

    assert first.fills(now) == second.fills(now)
    assert first.balance(now) == second.balance(now)


def test_the_living_market_is_a_small_business_of_the_promised_size(business):
    """About 36 fills a day, 15 to 25 open markets or nearly so, both directions, prices that move by the second."""
    fills = business.fills(NOW)
    days = (fills[-1].at - fills[0].at) / 86_400e6
    seconds = [NOW + timedelta(seconds=s) for s in range(10)]
    quotes = {tuple(business.quote(at, held.market).bid for held in business.open_positions(NOW)) for at in seconds}

    assert 90 <= days <= 121
    assert 25 <= len(fills) / days <= 45
    assert 12 <= len(business.open_positions(NOW)) <= 28
    assert Counter(fill.is_yes for fill in fills).keys() == {True, False}
    assert {"yes", "no", "scalar"} == {row.result for row in business.settlements(NOW)}
    assert any(fill.count % 100 for fill in fills)
    assert any(fill.price % 100 for fill in fills)
    assert len(quotes) >= 8


def test_fills_lie_within_the_life_of_their_market_and_lead_to_its_settlement(business):
    """No settlement without its fills, no fill before the opening or after the close."""
    for market in business.markets(NOW):
        counts = Counter()
        for fill in market.fills:
            assert market.open_at < fill.at < market.close_at < market.settlement.at
            counts[fill.is_yes] += fill.count
        assert market.settlement.fee_micros == sum(fill.fee_micros for fill in market.fills)
        assert (counts[True], counts[False]) == (market.settlement.yes_count, market.settlement.no_count)


async def test_the_balance_is_the_sum_of_the_cash_ledger(living):
    """Deposits less withdrawals, all settled P&L, and what the open positions cost: to the last digit."""
    fills = await living.kalshi_rows("/portfolio/fills") + await living.kalshi_rows("/historical/fills")
    markets = await living.kalshi_rows("/markets") + await living.kalshi_rows("/historical/markets")
    value = {m["ticker"]: Decimal(m["settlement_value_dollars"]) for m in markets if m["result"]}
    cash = Decimal(0)
    for name, sign in (("/portfolio/deposits", 1), ("/portfolio/withdrawals", -1)):
        rows = [row for row in await living.kalshi_rows(name) if row["status"] == "applied"]
        cash += sum(Decimal(sign * row["amount_cents"] - row["fee_cents"]) / 100 for row in rows)
    held = {}
    for fill in reversed(fills):
        is_yes, count = fill["outcome_side"] == "yes", Decimal(fill["count_fp"])
        cash -= count * Decimal(fill["yes_price_dollars" if is_yes else "no_price_dollars"]) + Decimal(fill["fee_cost"])
        yes, no = held.get(fill["ticker"], (Decimal(0), Decimal(0)))
        held[fill["ticker"]] = (yes + count, no) if is_yes else (yes, no + count)
    for ticker, (yes, no) in held.items():
        cash += yes * value[ticker] + no * (1 - value[ticker]) if ticker in value else min(yes, no)

    balance = await living.kalshi("/portfolio/balance")

    assert Decimal(balance["balance_dollars"]) == cash
    assert balance["balance"] == int(cash * 100)


async def test_each_fill_is_in_exactly_one_tier(living):
    """Older than the cutoff: only in the archive; newer: only live. Archived settlements are positions there."""
    cutoff = await living.kalshi("/historical/cutoff")
    live, archived = [await living.kalshi_rows(path) for path in ("/portfolio/fills", "/historical/fills")]
    settlements, positions = [await living.kalshi_rows(p) for p in ("/portfolio/settlements", "/historical/positions")]

    assert archived[0]["created_time"] < cutoff["trades_created_ts"] <= live[-1]["created_time"]
    assert not {row["fill_id"] for row in live} & {row["fill_id"] for row in archived}
    assert settlements[-1]["settled_time"] >= cutoff["market_settled_ts"]
    assert not {row["ticker"] for row in settlements} & {row["ticker"] for row in positions}
    assert positions


async def test_pages_of_any_size_hold_the_same_rows_newest_first(living):
    """Cursors neither lose nor repeat a row, and the last page says so with an empty one."""
    for path in ("/portfolio/fills", "/portfolio/settlements", "/markets", "/portfolio/positions"):
        whole = await living.kalshi_rows(path)
        assert [row["ticker"] for row in whole] == [row["ticker"] for row in await living.kalshi_rows(path, limit=37)]
    markets = len(await living.kalshi_rows("/portfolio/positions"))
    for limit, pages in ((markets, 1), (markets - 1, 2)):
        assert len([page async for page in living.kalshi_pages("/portfolio/positions", limit)]) == pages
    times = [row["created_time"] for row in await living.kalshi_rows("/portfolio/fills")]
    assert times == sorted(times, reverse=True)


async def test_a_row_that_arrives_between_two_pages_shifts_nothing():
    """A cursor remembers the last row given, not a number of rows."""
    clock = [NOW]
    async with serving(LivingMarket(seed=1), now=lambda: clock[0]) as client:
        first = await client.kalshi("/portfolio/fills", limit=50)
        clock[0] = client.now = NOW + timedelta(days=2)
        second = await client.kalshi("/portfolio/fills", limit=50, cursor=first["cursor"])

    times = [row["created_time"] for page in (first, second) for row in page["fills"]]
    assert len(set(times)) == 100
    assert times == sorted(times, reverse=True)


async def test_queries_narrow_what_is_given(living):
    """Ticker, time bounds, market words; a garbage cursor is the first page."""
    fills = (await living.kalshi("/portfolio/fills", limit=200))["fills"]
    ticker, ts = fills[-1]["ticker"], fills[100]["ts"]

    by_ticker = (await living.kalshi("/portfolio/fills", ticker=ticker))["fills"]
    since = (await living.kalshi("/portfolio/fills", min_ts=ts, limit=1000))["fills"]
    until = (await living.kalshi("/portfolio/fills", max_ts=ts, limit=1000))["fills"]
    garbage = (await living.kalshi("/portfolio/fills", cursor="?!garbage", limit=200))["fills"]
    markets = (await living.kalshi("/markets", tickers=f"{ticker},NOPE"))["markets"]
    still_open = (await living.kalshi("/markets", status="open"))["markets"]

    assert {row["ticker"] for row in by_ticker} == {ticker}
    assert min(row["ts"] for row in since) == ts == max(row["ts"] for row in until)
    assert garbage == fills
    assert [row["ticker"] for row in markets] == [ticker]
    assert {row["status"] for row in still_open} == {"active"}


@pytest.mark.parametrize("query", [{"limit": 1001}, {"limit": 0}, {"limit": "x"}, {"status": "active"}])
async def test_a_bad_query_is_refused_in_the_recorded_shape(living, query):
    """Not the nested shape of the other errors."""
    status, body = await living.get(living.sim.kalshi_url + "/markets", **query)

    assert status == 400
    assert body["msg"].startswith("Parameter validation failed for GetMarkets: ")


async def test_what_is_not_there_is_404_in_the_nested_shape(living):
    """Unknown routes and tickers; an archived market is not in the live tier."""
    archived = (await living.kalshi("/historical/markets", limit=1))["markets"][0]["ticker"]
    for path in ("/nothing", "/markets/NOPE", f"/markets/{archived}"):
        status, body = await living.get(living.sim.kalshi_url + path)
        assert (status, body["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("key_type", ["rsa", "ed25519"])
async def test_a_good_signature_of_either_kind_is_accepted(key_type):
    """The type follows from the key file, which nobody else can read."""
    async with serving(LivingMarket(days=1), key_type=key_type) as client:
        path = client.sim.private_key_path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "balance" in await client.kalshi("/portfolio/balance")
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"SIGNATURE": None},
            {"code": "signature_is_missing_from_headers", "message": "signature is missing from headers"},
        ),
        ({"KEY": "other"}, {"code": "authentication_error", "message": "authentication_error", "details": "NOT_FOUND"}),
        ({"TIMESTAMP": "1795000000000"}, {"code": "header_timestamp_expired", "message": "header timestamp expired"}),
        (
            {"SIGNATURE": base64.b64encode(b"no" * 128).decode()},
            {
                "code": "authentication_error",
                "message": "authentication_error",
                "details": "INCORRECT_API_KEY_SIGNATURE",
            },
        ),
    ],
)
async def test_a_bad_signature_is_refused_as_recorded(living, changes, error):
    """Missing, unknown key, expired, wrong: four different bodies."""
    url = living.sim.kalshi_url + "/portfolio/balance"

    assert await living.get(url, living.headers("/portfolio/balance", **changes)) == (401, {"error": error})


@pytest.mark.parametrize(("skew_s", "status"), [(14, 200), (-14, 200), (16, 401), (-16, 401)])
async def test_a_clock_may_be_fifteen_seconds_off(living, skew_s, status):
    """Further off is refused, early or late."""
    living.now = NOW + timedelta(seconds=skew_s)
    url = living.sim.kalshi_url + "/portfolio/balance"

    assert (await living.get(url, living.headers("/portfolio/balance")))[0] == status


async def test_too_many_requests_are_refused_with_the_bare_word():
    """200 tokens at 10 each, then 429 without Retry-After; the balance has its own bucket of one."""
    async with serving(LivingMarket(days=1), limited=True) as client:
        url = client.sim.kalshi_url
        answers = [await client.get(url + "/exchange/status") for _ in range(120)]
        balances = [
            await client.get(url + "/portfolio/balance", client.headers("/portfolio/balance")) for _ in range(9)
        ]

    assert [status for status, _ in answers[:20]] == [200] * 20
    assert (429, {"error": "too many requests"}) in answers
    assert [balances[0][0], balances[1][0]] == [200, 429]


async def test_a_key_file_that_is_there_is_used_and_never_overwritten(tmp_path):
    """A second start keeps the first key; a file that is no key is an error, not a victim."""
    path = tmp_path / "venue.pem"
    for _ in range(2):
        async with serving(LivingMarket(days=1), key_out=path) as client:
            await client.kalshi("/portfolio/balance")
    kept = path.read_bytes()
    path.write_text("a love letter")

    with pytest.raises(SimulatorError, match="holds no private key"):
        async with serving(LivingMarket(days=1), key_out=path):
            pass

    assert b"PRIVATE KEY" in kept
    assert path.read_text() == "a love letter"


async def test_hostile_titles_and_descriptions_are_served_as_they_are(living):
    """Script, formulas, right-to-left text and 300 letters: the page's escape is tested with them."""
    titles = {row["title"] for row in await living.kalshi_rows("/markets")}
    _, deals = await living.bearer(living.sim.john_url)
    words = {row["description"] for row in deals["data"]}

    for texts in (titles, words):
        assert any("<" in text or text.startswith("=") for text in texts)
    assert any("onerror" in text for text in titles)
    assert any(len(text) >= 290 for text in titles)


async def test_both_header_styles_open_the_cost_report(living):
    """x-api-key with a version, and the bearer form of the newer SDK."""
    query = {"starting_at": (TODAY - timedelta(days=3)).isoformat()}
    bearer = {"Authorization": f"Bearer {living.sim.admin_key}", "anthropic-version": "2026-10-21"}

    old, new = await living.anthropic("cost_report", query), await living.anthropic("cost_report", query, bearer)

    assert old == new
    assert old[0] == 200
    assert (await living.anthropic("cost_report", query, {"x-api-key": "no"}))[0] == 401
    assert (await living.anthropic("cost_report", query, {"x-api-key": living.sim.admin_key}))[0] == 400


async def test_a_cost_report_of_today_is_refused(living):
    """Only finished UTC days are billed: the end is clipped to midnight."""
    for end in ({}, {"ending_at": (TODAY + timedelta(days=1)).isoformat()}):
        status, body = await living.anthropic("cost_report", {"starting_at": TODAY.isoformat(), **end})
        assert (status, body["error"]["message"]) == (400, "ending date must be after starting date")
        assert body["request_id"].startswith("req_")


@pytest.mark.parametrize(("hour", "rows"), [(5, 0), (6, 1)])
async def test_the_bill_of_yesterday_comes_at_six(hour, rows):
    """Until 06:00 UTC its bucket is there and empty."""
    async with serving(LivingMarket(days=1), now=lambda: TODAY.replace(hour=hour)) as client:
        _, body = await client.anthropic("cost_report", {"starting_at": (TODAY - timedelta(days=1)).isoformat()})

    assert [len(bucket["results"]) for bucket in body["data"]] == [rows]


async def test_cost_details_add_up_to_the_undetailed_bill_over_all_pages(living):
    """Details are null unless grouped by description; amounts are cents in decimal strings."""
    plain, detailed = Decimal(0), Decimal(0)
    for groups in ({}, {"group_by[]": "description"}):
        page = {}
        while True:
            start = {"starting_at": (TODAY - timedelta(days=40)).isoformat(), "limit": 9}
            _, body = await living.anthropic("cost_report", {**start, **groups, **page})
            rows = [row for bucket in body["data"] for row in bucket["results"]]
            total = sum(Decimal(row["amount"]) for row in rows)
            plain, detailed = (plain, detailed + total) if groups else (plain + total, detailed)
            assert all((row["description"] is not None) == bool(groups) for row in rows)
            if not body["has_more"]:
                break
            page = {"page": body["next_page"]}

    assert plain == detailed
    assert 40 * 300 < plain < 40 * 900


def test_what_grows_with_the_clock_is_not_kept():
    """A demo that runs for days asks for today again and again, each time up to another instant."""
    market, day = LivingMarket(days=3), 86_400_000_000
    start = int(datetime(2026, 7, 14, tzinfo=UTC).timestamp()) * 1_000_000
    noon = datetime(2026, 7, 14, 12, tzinfo=UTC)
    asked = [market.tokens(start, start + day, noon + timedelta(seconds=n)) for n in range(50)]
    kept = tokens_used.cache_info().currsize

    asked += [market.tokens(start, start + day, noon + timedelta(seconds=n)) for n in range(50, 100)]

    assert tokens_used.cache_info().currsize == kept
    outputs = [sum(tokens.output for tokens in used.values()) for used in asked]
    assert outputs == sorted(outputs)
    assert outputs[-1] > outputs[0]


async def test_usage_is_the_same_in_buckets_of_any_width(living):
    """Minutes, hours and days add up to the same tokens; today grows with the clock."""
    totals = set()
    for width, limit in (("1m", 1440), ("1h", 168), ("1d", 31)):
        query = {"starting_at": TODAY.isoformat(), "bucket_width": width, "limit": limit}
        _, body = await living.anthropic("usage_report/messages", query)
        totals.add(sum(row["output_tokens"] for bucket in body["data"] for row in bucket["results"]))
    status, _ = await living.anthropic("usage_report/messages", {**query, "limit": 32})

    assert len(totals) == 1
    assert totals.pop() > 0
    assert status == 400


async def test_a_recorded_account_has_empty_bills_and_no_deals(tmp_path):
    """Empty days come as buckets with no results."""
    (tmp_path / "fills.csv").write_text(
        "fill_id,trade_id,order_id,ticker,market_ticker,side,action,outcome_side,book_side,count_fp,"
        "yes_price_dollars,no_price_dollars,fee_cost,is_taker,created_time,ts,subaccount_number\n"
    )
    (tmp_path / "settlements.csv").write_text(
        "ticker,event_ticker,market_result,yes_count_fp,yes_total_cost_dollars,no_count_fp,"
        "no_total_cost_dollars,revenue,fee_cost,value,settled_time\n"
    )
    async with serving(RecordedAccount(tmp_path)) as client:
        _, bill = await client.anthropic("cost_report", {"starting_at": (TODAY - timedelta(days=3)).isoformat()})
        _, deals = await client.bearer(client.sim.john_url)

    assert [bucket["results"] for bucket in bill["data"]] == [[], [], []]
    assert deals == {"data": [], "next_cursor": None}


async def test_deals_come_in_pages_ordered_by_their_latest_change(living):
    """updated_since narrows them; without the token there is a 401 in JSON."""
    rows, cursor = [], ""
    while cursor is not None:
        _, body = await living.bearer(living.sim.john_url, limit=4, cursor=cursor)
        rows += body["data"]
        cursor = body["next_cursor"]
    _, later = await living.bearer(living.sim.john_url, updated_since=rows[10]["updated_at"])

    assert len({row["id"] for row in rows}) == len(rows) > 15
    assert [row["updated_at"] for row in rows] == sorted(row["updated_at"] for row in rows)
    assert later["data"] == rows[10:]
    assert {"paid", "refunded", "lost"} <= {row["status"] for row in rows}
    assert (await living.get(living.sim.john_url))[0] == 401


async def test_balance_transactions_tell_of_the_same_deals_in_the_shape_of_stripe(living):
    """Charges less refunds are the paid deals; payouts are own money moving."""
    url, rows, query = living.sim.stripe_url + "/v1/balance_transactions", [], {"limit": 7}
    while True:
        _, body = await living.bearer(url, **query)
        rows += body["data"]
        if not body["has_more"]:
            break
        query["starting_after"] = rows[-1]["id"]
    _, deals = await living.bearer(living.sim.john_url, limit=1000)
    paid = sum(Decimal(deal["amount"]) for deal in deals["data"] if deal["status"] == "paid")

    assert sum(row["amount"] for row in rows if row["type"] != "payout") == paid * 100
    assert all(row["net"] == row["amount"] - row["fee"] for row in rows)
    assert {row["type"] for row in rows} == {"charge", "refund", "payout"}


async def test_a_test_may_put_another_answer_in_the_place_of_one(living):
    """And requests are counted, refused or not."""
    living.sim.answers["/deals"] = lambda _: web.json_response({"oops": True}, status=503)

    assert await living.get(living.sim.john_url) == (503, {"oops": True})
    living.sim.answers.clear()
    assert (await living.get(living.sim.john_url))[0] == 401
    assert living.sim.requests["GET /deals"] == 2
    assert (await living.get(living.sim.stripe_url + "/simulator/requests"))[1]["GET /deals"] == 2
