"""Revenue, the deals that "John" closes: a deals endpoint, Stripe's balance transactions, or a CSV file.

Which of the three follows from `PNL_JOHN_URL`: an address with a path is a deals endpoint, a bare scheme and host is
Stripe's base address, anything else is a file. Only US dollars can be added up: rows in other currencies are set aside.
"""

import asyncio
import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from pnl.config import Settings, http_url
from pnl.errors import BadRow, ConfigError, SourceError
from pnl.records import DEAL_STATUSES, ZERO, Batch, Deal, Known
from pnl.sources import rows
from pnl.sources.feed import Feed, Window
from pnl.sources.rows import Row
from pnl.sources.transport import Transport, listed, read_pages

POLL_S = 30.0
PAGE_ROWS = "100"
UPDATED = Feed("updated_to", overlap=timedelta(days=3))
LARGEST_FILE_BYTES = 64 * 1024 * 1024

STRIPE_REVENUE = frozenset(
    {"charge", "payment", "refund", "payment_refund", "payment_failure_refund", "refund_failure", "adjustment"}
    | {"payment_reversal", "contribution", "advance"}
)
STRIPE_FEES = frozenset({"stripe_fee", "stripe_fx_fee", "tax_fee", "application_fee"})
STRIPE_OWN_MONEY = frozenset(
    {"payout", "payout_cancel", "payout_failure", "transfer", "transfer_cancel", "transfer_failure", "transfer_refund"}
    | {"topup", "topup_reversal", "reserve_transaction", "reserved_funds"}
)


class John:
    """Revenue from closed deals."""

    name = "john"

    def __init__(self, place: "Place", *, poll_s: float = POLL_S) -> None:
        self.poll_s = poll_s
        self.origin = place.origin
        self._place = place

    @classmethod
    def from_settings(cls, settings: Settings, transport: Transport) -> Self | None:
        """The place that the setting names, or None when it is not set.

        Raises:
            ConfigError: The address or the file's name makes no sense.
        """
        if settings.john_url is None:
            return None
        place = place_of(settings.john_url, settings.john_token, transport, settings.since)
        return cls(place, poll_s=settings.john_poll_s or settings.poll_s or POLL_S)

    async def check(self) -> str:
        """How many deals the place begins with, and whether they can be believed.

        Raises:
            SourceError: The place cannot be read.
        """
        found = await self._place.first()
        said = f"{len(found.deals)} deals {'in the file' if found.holds_all_deals else 'on the first page'}"
        return f"{said}; set aside {len(found.refused)}, such as {found.refused[0]}" if found.refused else said

    async def poll(self, known: Known) -> Batch:
        """Deals that are new or changed since the cursor; of a file, all of them.

        Raises:
            SourceError: The place cannot be read.
        """
        return await self._place.read(known)


class Place(Protocol):
    """Where deals are read from."""

    origin: str

    async def read(self, known: Known) -> Batch:
        """The deals since the cursor, or all of them."""

    async def first(self) -> Batch:
        """The deals of the first page, or all of them."""


def place_of(url: str, token: SecretStr | None, transport: Transport, since: datetime | None) -> Place:
    """The kind of place that an address means.

    Raises:
        ConfigError: It is no address and no file name.
    """
    if "://" not in url:
        return DealsFile(Path(url).expanduser())
    try:
        parts = urlsplit(http_url(url))
    except ValueError as error:
        raise ConfigError(f"PNL_JOHN_URL: {error}") from None
    headers = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
    web = Web(transport, headers, since)
    address = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    if parts.path in {"", "/"}:
        return Stripe(web, address.rstrip("/"))
    return DealsEndpoint(web, address, rows_query=parts.query)


@dataclass(frozen=True, slots=True, repr=False)
class Web:
    """What both web places need: the session, who asks, and how far back."""

    transport: Transport
    headers: Mapping[str, str]
    since: datetime | None

    async def get(self, url: str, query: list[tuple[str, str]]) -> Any:
        """One page as JSON."""
        return await self.transport.get(url, source="john", headers=self.headers, query=query, explain=explain)

    def window(self, known: Known) -> Window:
        """What to read, with some overlap over what is known."""
        return UPDATED.window(known.cursors, since=self.since, now=datetime.now(UTC))


class DealsEndpoint:
    """`GET …?updated_since=&cursor=&limit=` answering `{"data": [deal, …], "next_cursor": …}`."""

    def __init__(self, web: Web, url: str, *, rows_query: str = "") -> None:
        self.origin = f"deals:{url}"
        self._web = web
        self._url = f"{url}?{rows_query}" if rows_query else url

    async def read(self, known: Known) -> Batch:
        """Deals updated since the cursor."""
        read_from = self._web.window(known)
        found = await read_pages("john: the list of deals", partial(self._page, read_from.start))
        return self._believed(found, known, read_from)

    async def first(self) -> Batch:
        """The deals of the first page."""
        found, _ = await self._page(None, "")
        return self._believed(found, Known(), Window(None))

    async def _page(self, start: datetime | None, cursor: str) -> tuple[list[Any], str]:
        window = [] if start is None else [("updated_since", start.isoformat().replace("+00:00", "Z"))]
        query = [("limit", PAGE_ROWS), *window, *([("cursor", cursor)] if cursor else [])]
        page = await self._web.get(self._url, query)
        return listed(page, "data", source="john"), str(page.get("next_cursor") or "")

    def _believed(self, found: list[Any], known: Known, read: Window) -> Batch:
        return _batch(found, lambda row: deal(row, self.origin), known, read)


class Stripe:
    """`GET /v1/balance_transactions`: payments and their refunds are revenue, fees are costs, payouts are neither."""

    def __init__(self, web: Web, url: str) -> None:
        self.origin = f"stripe:{url}"
        self._web = web
        self._url = f"{url}/v1/balance_transactions"

    async def read(self, known: Known) -> Batch:
        """Transactions created since the cursor."""
        read_from = self._web.window(known)
        moved = await read_pages("john: Stripe's list of transactions", partial(self._page, read_from.start))
        return self._believed(moved, known, read_from)

    async def first(self) -> Batch:
        """The transactions of the first page."""
        moved, _ = await self._page(None, "")
        return self._believed(moved, Known(), Window(None))

    async def _page(self, start: datetime | None, cursor: str) -> tuple[list[Any], str]:
        window = [] if start is None else [("created[gte]", str(int(start.timestamp())))]
        query = [("limit", PAGE_ROWS), *window, *([("starting_after", cursor)] if cursor else [])]
        page = await self._web.get(self._url, query)
        some = listed(page, "data", source="john")
        last = some[-1].get("id") if some and isinstance(some[-1], dict) and page.get("has_more") else ""
        return some, str(last or "")

    def _believed(self, moved: list[Any], known: Known, read: Window) -> Batch:
        money = [row for row in moved if not _is_own_money(row)]
        return _batch(money, lambda row: balance_transaction(row, self.origin), known, read)


class DealsFile:
    """A CSV file with the deals endpoint's column names; `updated_at` and `description` may be left out."""

    REQUIRED = ("id", "amount", "currency", "closed_date", "status")

    def __init__(self, path: Path) -> None:
        self.origin = f"csv:{path.absolute()}"
        self._path = path

    async def read(self, known: Known) -> Batch:
        """Every deal of the file, so that a line that was deleted is a deal that is gone."""
        lines = await asyncio.to_thread(self._rows)
        batch = _batch(lines, lambda row: deal(row, self.origin), known, Window(None))
        return replace(batch, holds_all_deals=True, cursors={})

    async def first(self) -> Batch:
        """Every deal of the file."""
        return await self.read(Known())

    def _rows(self) -> list[dict[str, Any]]:
        try:
            if self._path.stat().st_size > LARGEST_FILE_BYTES:
                raise SourceError(
                    f"john: {self._path} is larger than {LARGEST_FILE_BYTES >> 20} MB, which no list of deals should be"
                )
            with self._path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                missing = [name for name in self.REQUIRED if name not in (reader.fieldnames or ())]
                if missing:
                    raise SourceError(f"john: {self._path} has no column {', '.join(missing)} in its first line")
                return [_csv_row(row) for row in reader]
        except OSError as error:
            raise SourceError(
                f"john: {self._path} cannot be read ({error.strerror}); is PNL_JOHN_URL right?"
            ) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"john: {self._path} is not a CSV file in UTF-8 ({error})") from error


def deal(row: Row, origin: str) -> Deal:
    """One deal of the endpoint or the file."""
    _only_usd(row)
    closed_on = rows.day(row, "closed_date")
    return Deal(
        origin=origin,
        deal_id=rows.text(row, "id"),
        amount_usd=rows.amount(row, "amount"),
        status=rows.word(row, "status", DEAL_STATUSES),
        closed_on=closed_on,
        updated_at=rows.instant(row, "updated_at" if row.get("updated_at") else "closed_date"),
        description=rows.label(row.get("description")),
    )


def balance_transaction(row: Row, origin: str) -> Deal:
    """One of Stripe's transactions: signed gross in cents, and the fee apart from it."""
    _only_usd(row)
    kind = rows.word(row, "type", STRIPE_REVENUE | STRIPE_FEES)
    created = rows.unix_instant(row, "created")
    gross_usd, fee_usd = rows.cents(row, "amount"), rows.cents(row, "fee")
    is_fee = kind in STRIPE_FEES
    return Deal(
        origin=origin,
        deal_id=rows.text(row, "id"),
        amount_usd=ZERO if is_fee else gross_usd,
        status="paid",
        closed_on=created.date(),
        updated_at=created,
        description=rows.label(row.get("description")),
        fee_usd=fee_usd - gross_usd if is_fee else fee_usd,
    )


def _is_own_money(row: Any) -> bool:
    kind = row.get("type") if isinstance(row, Mapping) else None
    return isinstance(kind, str) and kind in STRIPE_OWN_MONEY


def explain(status: int, body: Any) -> str:
    """What a person should do about a refusal."""
    del body
    advice = {401: "check PNL_JOHN_TOKEN", 403: "check PNL_JOHN_TOKEN", 404: "is PNL_JOHN_URL right?"}
    return advice.get(status, "")


def _only_usd(row: Row) -> None:
    if str(row.get("currency", "")).upper() != "USD":
        raise BadRow(
            f"currency is {str(row.get('currency'))[:10]!r}, only USD can be added up; convert it at the source"
        )


def _batch(found: list[Any], make: Callable[[Row], Deal], known: Known, read: Window) -> Batch:
    deals, refused = rows.convert(found, make, what="deal", key="id")
    updated = [deal.updated_at for deal in deals]
    cursors = UPDATED.advance(known.cursors, read, updated, is_refused=bool(refused), now=datetime.now(UTC))
    return Batch(deals=tuple(deals), refused=tuple(refused), reread=read.reread("deal"), cursors=cursors)


def _csv_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (value or "").strip()
        for name, value in row.items()
        if isinstance(name, str) and not isinstance(value, list)
    }
