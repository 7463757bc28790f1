"""Anthropic's Admin API: what each finished UTC day cost, and an estimate of the days that are not billed yet.

The cost report is the truth, but only for finished days, often some hours late. Days it does not hold yet are estimated
from the usage report's tokens and a dated price list, and replaced once they are billed. Bills are revised in place,
so the last days are read again at every poll.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Self

from pydantic import SecretStr

from pnl.config import Settings
from pnl.errors import BadRow, SourceError, SourceRefused
from pnl.records import ZERO, Batch, Cost, CostDay, Known, Refused, money
from pnl.sources import rows
from pnl.sources.rows import Row
from pnl.sources.transport import Transport, listed, merge, read_pages, side_by_side

POLL_S = 60.0
API_VERSION = "2023-06-01"
BUCKETS_PER_PAGE = "31"
USAGE_GROUPS = ("model", "service_tier", "inference_geo")
FIRST_SYNC = timedelta(days=365)
REVISED_FOR = timedelta(days=3)
BILLED_WITHIN = timedelta(days=7)  # a finished day without a bill for so long cost nothing
MILLION = Decimal(1_000_000)
COMMITTED_TIER = "priority"  # paid for in advance, so in no cost report

# The published calls send x-api-key, the newer documents a bearer token: the one that is refused gives way to another.
HEADER_STYLES: tuple[Callable[[str], dict[str, str]], ...] = (
    lambda key: {"x-api-key": key},
    lambda key: {"Authorization": f"Bearer {key}"},
)

REFUSALS = {
    401: "the key is not valid; PNL_ANTHROPIC_ADMIN_KEY should be an Admin key (sk-ant-admin…) of your organisation",
    403: "the key may not read costs; PNL_ANTHROPIC_ADMIN_KEY should be an Admin key (sk-ant-admin…)",
    404: "is PNL_ANTHROPIC_URL right?",
}


class Anthropic:
    """The costs of an Anthropic organisation."""

    name = "anthropic"
    origin = "anthropic"

    def __init__(
        self,
        url: str,
        admin_key: SecretStr,
        transport: Transport,
        *,
        poll_s: float = POLL_S,
        since: datetime | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.poll_s = poll_s
        self._url = url
        self._admin_key = admin_key
        self._transport = transport
        self._since = since
        self._now = now
        self._header_style = 0

    @classmethod
    def from_settings(cls, settings: Settings, transport: Transport) -> Self | None:
        """The organisation, or None when no Admin key is set."""
        if settings.anthropic_admin_key is None:
            return None
        poll_s = settings.anthropic_poll_s or settings.poll_s or POLL_S
        return cls(settings.anthropic_url, settings.anthropic_admin_key, transport, poll_s=poll_s, since=settings.since)

    async def check(self) -> str:
        """To which day it has billed, of the last ones.

        Raises:
            SourceError: The report could not be read.
        """
        today = self._now().date()
        buckets = await self._buckets("cost_report", today - REVISED_FOR, today, ["description"])
        billed = {day: lines for day, lines, _ in map(_cost_lines, buckets) if lines}
        if not billed:
            return f"nothing is billed from {today - REVISED_FOR} (UTC) on"
        return (
            f"billed to {max(billed)} (UTC): {money(sum((c.amount_usd for c in billed[max(billed)]), ZERO))} that day"
        )

    async def poll(self, known: Known) -> Batch:
        """Bills from the last ones on, and estimates for what they lack; on the first poll, a year of bills.

        Raises:
            SourceError: Neither report could be read.
        """
        today = self._now().date()
        recent = today - REVISED_FOR
        batches, errors = await side_by_side(self._billed(known, today), self._estimated(recent))
        if not batches:
            raise errors[0]
        batch = merge(batches, errors)
        return _only_bills(batch) if errors else _prefer_bills(batch)

    async def _billed(self, known: Known, today: date) -> Batch:
        """Every finished day since the cursor; a day without a line is not billed yet, or cost nothing."""
        start = self._first_day(known, today)
        days: list[CostDay] = []
        refused: list[Refused] = []
        reread: set[str] = set()
        read: list[date] = []
        if start < today:  # the report refuses to start today
            for bucket in await self._buckets("cost_report", start, today, ["description"]):
                day, lines, bad = _cost_lines(bucket)
                refused += bad
                read.append(day)
                reread.add(_cost_of(day))
                if lines:
                    days.append(CostDay(self.name, day, tuple(lines), is_cut=bool(bad)))
                if lines or day <= today - BILLED_WITHIN:  # then the estimate is no longer wanted
                    reread.add(_usage_of(day))
        cursors = dict(known.cursors)
        if read and not refused:  # not past the last day that the report held: it may have ended early
            cursors = {"billed_to": min(_billed_to(days, today), max(read)).isoformat()}
        return Batch(cost_days=tuple(days), refused=tuple(refused), reread=frozenset(reread), cursors=cursors)

    def _first_day(self, known: Known, today: date) -> date:
        if cursor := known.cursors.get("billed_to"):
            return min(date.fromisoformat(cursor), today) - REVISED_FOR
        return today - FIRST_SYNC if self._since is None else self._since.astimezone(UTC).date()

    async def _estimated(self, start: date) -> Batch:
        """The last days by tokens and list price, today as far as it has come."""
        days: list[CostDay] = []
        refused: list[Refused] = []
        reread: set[str] = set()
        for bucket in await self._buckets("usage_report/messages", start, None, USAGE_GROUPS):
            day, lines, bad = _usage_lines(bucket)
            refused += bad
            reread.add(_usage_of(day))
            days.append(CostDay(self.name, day, tuple(lines), is_estimate=True, is_cut=bool(bad)))
        return Batch(cost_days=tuple(days), refused=tuple(refused), reread=frozenset(reread))

    async def _buckets(self, report: str, start: date, end: date | None, groups: Iterable[str]) -> list[Any]:
        """All buckets of a daily report, from `start` to before `end`."""
        query = [("starting_at", _midnight(start)), ("bucket_width", "1d"), ("limit", BUCKETS_PER_PAGE)]
        query += [] if end is None else [("ending_at", _midnight(end))]
        query += [("group_by[]", group) for group in groups]

        async def read(cursor: str) -> tuple[list[Any], str]:
            page = await self._get(report, query + ([("page", cursor)] if cursor else []))
            more = page.get("next_page") if isinstance(page, Mapping) and page.get("has_more") else None
            return listed(page, "data", source=self.name), str(more or "")

        return await read_pages(f"anthropic: {report}", read)

    async def _get(self, report: str, query: list[tuple[str, str]]) -> Any:
        url = f"{self._url}/v1/organizations/{report}"
        style = self._header_style
        try:
            return await self._ask(url, query, style)
        except SourceRefused as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
        self._header_style = 1 - style  # two reports are asked side by side, so it is set and never turned over
        return await self._ask(url, query, 1 - style)

    async def _ask(self, url: str, query: list[tuple[str, str]], style: int) -> Any:
        key_header = HEADER_STYLES[style](self._admin_key.get_secret_value())
        headers = {**key_header, "anthropic-version": API_VERSION}
        return await self._transport.get(url, source=self.name, headers=headers, query=query, explain=explain)


def explain(status: int, body: Any) -> str:
    """What a person should do about a refusal."""
    if status in REFUSALS:
        return REFUSALS[status]
    error = body.get("error") if isinstance(body, Mapping) else None
    return str(error.get("message"))[:200] if isinstance(error, Mapping) else ""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens of one model, from one UTC day on."""

    model: str
    since: date
    per_million: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class PriceList:
    """List prices by model and day, and what the other terms do to them."""

    prices: tuple[Price, ...]
    web_search_usd: Decimal
    batch_ratio: Decimal
    us_ratio: Decimal

    def of(self, model: str, day: date) -> Price | None:
        """The price of a model on a day: the longest name that fits, and of those the latest; None if unknown."""
        fitting = [p for p in self.prices if _is_model(model, p.model) and p.since <= day]
        return max(fitting, key=lambda price: (len(price.model), price.since), default=None)


@cache
def price_list() -> PriceList:
    """The dated price list that comes with the package."""
    table = tomllib.loads(
        files("pnl.sources").joinpath("anthropic_prices.toml").read_text("utf-8"), parse_float=Decimal
    )
    kinds = ("input", "write_5m", "write_1h", "read", "output")
    return PriceList(
        tuple(
            Price(model, price["from"], {kind: Decimal(price[kind]) for kind in kinds})
            for price in table["price"]
            for model in price["models"]
        ),
        web_search_usd=Decimal(table["web_search_usd_per_1000"]) / 1000,
        batch_ratio=Decimal(table["batch_ratio"]),
        us_ratio=Decimal(table["us_inference_ratio"]),
    )


def estimate(row: Row, day: date, prices: PriceList) -> Decimal:
    """What one usage row costs by list price, in US dollars.

    Raises:
        BadRow: The model has no price, or a count makes no sense.
    """
    tokens = _tokens(row)
    searches = _count(row.get("server_tool_use"), "web_search_requests")
    used = searches + sum(tokens.values())
    if not used or row.get("service_tier") == COMMITTED_TIER:
        return ZERO
    price = prices.of(rows.text(row, "model"), day)
    if price is None:
        raise BadRow(f"no list price is known for it, so its use ({used:,}) is left out until it is billed")
    usd = sum((price.per_million[kind] * count / MILLION for kind, count in tokens.items()), ZERO)
    usd *= prices.batch_ratio if row.get("service_tier") == "batch" else 1
    usd *= prices.us_ratio if row.get("inference_geo") == "us" else 1
    return usd + prices.web_search_usd * searches


def _tokens(row: Row) -> dict[str, Decimal]:
    writes = row.get("cache_creation")
    return {
        "input": _count(row, "uncached_input_tokens"),
        "write_5m": _count(writes, "ephemeral_5m_input_tokens"),
        "write_1h": _count(writes, "ephemeral_1h_input_tokens"),
        "read": _count(row, "cache_read_input_tokens"),
        "output": _count(row, "output_tokens"),
    }


def _count(row: Any, field: str) -> Decimal:
    if not isinstance(row, Mapping) or row.get(field) is None:
        return ZERO
    return rows.amount(row, field, unit=rows.ONE, least=ZERO, most=rows.LARGEST_COUNT)


def _is_model(model: str, name: str) -> bool:
    """`claude-opus-5-20260101` is an Opus 5, `claude-opus-5-5` is not: a short number after the name is a version."""
    rest = model.removeprefix(name)
    if rest == model:
        return False
    version = rest.removeprefix("-").partition("-")[0]
    return not rest or (rest.startswith("-") and not (version.isdigit() and len(version) < len("20260101")))


def _billed_to(days: list[CostDay], today: date) -> date:
    return max([day.day for day in days] + [today - BILLED_WITHIN])


def _cost_of(day: date) -> str:
    return f"cost of {day}"


def _usage_of(day: date) -> str:
    return f"usage of {day}, model"


def _cost_lines(bucket: Any) -> tuple[date, list[Cost], list[Refused]]:
    day = _bucket_day(bucket)
    lines, refused = rows.convert(
        listed(bucket, "results", source="anthropic"),
        lambda row: _cost_line(row, day),
        what=_cost_of(day),
        key="description",
    )
    return day, lines, refused


def _cost_line(row: Row, day: date) -> Cost:
    if row.get("currency", "USD") != "USD":
        raise BadRow(f"currency is {str(row['currency'])[:10]!r}, only USD can be added up")
    item = row.get("description") or row.get("cost_type") or "all"
    return Cost("anthropic", day, rows.label(item), rows.cents(row, "amount"))


def _usage_lines(bucket: Any) -> tuple[date, list[Cost], list[Refused]]:
    day = _bucket_day(bucket)
    used = listed(bucket, "results", source="anthropic")
    lines, refused = rows.convert(used, lambda row: _usage_line(row, day), what=_usage_of(day), key="model")
    return day, lines, refused


def _usage_line(row: Row, day: date) -> Cost:
    item = rows.label(row.get("model"))
    return Cost("anthropic", day, item, estimate(row, day, price_list()), is_estimate=True)


def _bucket_day(bucket: Any) -> date:
    try:
        return rows.day(bucket, "starting_at")
    except (BadRow, AttributeError) as error:
        raise SourceError(f"anthropic: a bucket of a report has no day: {error}") from error


def _only_bills(batch: Batch) -> Batch:
    """No estimate: it must not replace a bill that could not be read. A bill stands without its estimate."""
    return replace(batch, cost_days=tuple(day for day in batch.cost_days if not day.is_estimate))


def _prefer_bills(batch: Batch) -> Batch:
    """One entry a day: the bill where there is one."""
    bills = {day.day for day in batch.cost_days if not day.is_estimate}
    kept = tuple(day for day in batch.cost_days if not (day.is_estimate and day.day in bills))
    return replace(batch, cost_days=kept)


def _midnight(day: date) -> str:
    return datetime.combine(day, time(), UTC).isoformat().replace("+00:00", "Z")
