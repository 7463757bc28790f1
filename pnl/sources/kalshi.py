"""Kalshi trade-api v2: fills of both tiers, settlements, positions, balance and marks, signed and paced.

One poll asks side by side for marks first, then fills, settlements, positions and the balance, each from where the
last poll ended with some overlap; a row that comes twice changes nothing. A feed that fails leaves the others theirs.
"""

import base64
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from itertools import batched
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pnl.config import Settings, others_read
from pnl.errors import BadRow, ConfigError, SourceError
from pnl.records import ZERO, Account, Batch, Fill, Holding, Known, Mark, Result, Settlement, Side, money
from pnl.sources import rows
from pnl.sources.feed import Feed
from pnl.sources.rows import Row
from pnl.sources.transport import Paced, Transport, listed, merge, read_pages, side_by_side

POLL_S = 2.0
READS_PER_S = 18  # the Basic tier allows 20; two are left for other programs and for clocks that differ
READS_AT_ONCE = 10
BALANCE_EVERY_S = 1.0
PAGE_ROWS = 1000
MARKETS_PER_REQUEST = 100
FILLS = Feed("fills", overlap=timedelta(minutes=10))
SETTLEMENTS = Feed("settlements", overlap=timedelta(days=1))

ARCHIVED_TO = "archived_to"
SIDES: dict[str, Side] = {"yes": "yes", "bid": "yes", "no": "no", "ask": "no"}

ADVICE: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "is PNL_KALSHI_URL right?",
    HTTPStatus.TOO_MANY_REQUESTS: "too many requests; the next poll waits its turn",
}
REFUSALS = {
    "header_timestamp_expired": "the clock of this machine is off; set it (for instance with NTP)",
    "INCORRECT_API_KEY_SIGNATURE": "the private key does not belong to the key id; check PNL_KALSHI_PRIVATE_KEY_PATH",
    "NOT_FOUND": "the key id is not known to this address; check PNL_KALSHI_KEY_ID and PNL_KALSHI_URL",
}

type PrivateKey = RSAPrivateKey | Ed25519PrivateKey


class Signer:
    """Signs requests with the account's private key; its repr shows neither key nor id."""

    def __init__(self, key_id: str, key: PrivateKey, *, clock: Callable[[], float] = time.time) -> None:
        self._key_id = key_id
        self._key = key
        self._clock = clock

    def headers(self, method: str, path: str) -> dict[str, str]:
        """The three headers for one request.

        Args:
            method: Upper case.
            path: The whole path of the URL, `/trade-api/v2` included, without the query.
        """
        timestamp = str(int(self._clock() * 1000))
        return {
            "KALSHI-ACCESS-KEY": self._key_id,
            "KALSHI-ACCESS-TIMESTAMP": timestamp,
            "KALSHI-ACCESS-SIGNATURE": base64.b64encode(self._sign(f"{timestamp}{method}{path}".encode())).decode(),
        }

    def _sign(self, message: bytes) -> bytes:
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(message)
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
        return self._key.sign(message, pss, hashes.SHA256())


def load_private_key(path: Path) -> PrivateKey:
    """Read a PEM key that only its owner can read.

    Raises:
        ConfigError: The file is missing, open to others, or not such a key; its content is never shown.
    """
    setting = f"PNL_KALSHI_PRIVATE_KEY_PATH: {path}"
    try:
        found = path.stat()
        pem = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{setting} cannot be read ({error.strerror}); it should be the PEM file that Kalshi gave you"
        ) from None
    if others_read(found):
        raise ConfigError(
            f"{setting} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}); run: chmod 600 '{path}'"
        )
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise ConfigError(f"{setting} is not an RSA or Ed25519 private key in PEM form without a password")
    return key


class Kalshi:
    """A Kalshi account, read-only."""

    name = "kalshi"
    origin = "kalshi"

    def __init__(
        self,
        url: str,
        signer: Signer,
        transport: Transport,
        *,
        poll_s: float = POLL_S,
        since: datetime | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.poll_s = poll_s
        self._url = url
        self._signer = signer
        self._transport = transport
        self._since = since
        self._pace = Paced(per_second=READS_PER_S, burst=READS_AT_ONCE)
        self._clock = clock
        self._now = now
        self._balance: tuple[float, Decimal] | None = None
        self._cutoff: datetime | None = None

    @classmethod
    def from_settings(cls, settings: Settings, transport: Transport) -> Self | None:
        """The account, or None when no key is set.

        Raises:
            ConfigError: Only one half of the key is set, or its file cannot be used.
        """
        key_id, path = settings.kalshi_key_id, settings.kalshi_private_key_path
        if key_id is None and path is None:
            return None
        if key_id is None or path is None:
            missing = "PNL_KALSHI_KEY_ID" if key_id is None else "PNL_KALSHI_PRIVATE_KEY_PATH"
            raise ConfigError(f"{missing} is not set; Kalshi needs the key id and the path of its private key")
        signer = Signer(key_id, load_private_key(path))
        poll_s = settings.kalshi_poll_s or settings.poll_s or POLL_S
        return cls(settings.kalshi_url, signer, transport, poll_s=poll_s, since=settings.since)

    async def check(self) -> str:
        """The balance, and whether the exchange trades.

        Raises:
            SourceError: One of the two could not be read.
        """
        balance_usd = await self._cash_usd()
        status = await self._get("/exchange/status", {})
        trades = isinstance(status, Mapping) and status.get("trading_active") is True
        return f"the balance is {money(balance_usd)}; the exchange is {'open' if trades else 'closed now'}"

    async def poll(self, known: Known) -> Batch:
        """What is new since the cursors; on the first poll, the account's whole history.

        Raises:
            SourceError: No feed could be read.
        """
        feeds = (
            *([self._marks(known.open_tickers)] if known.open_tickers else []),
            self._fills(known),
            self._settlements(known),
            self._positions(),
            self._read_balance(),
        )
        batches, errors = await side_by_side(*feeds)
        if not batches:
            raise errors[0]
        later, later_errors = await self._follow_up(known, batches)
        return merge([*batches, *later], [*errors, *later_errors])

    async def _follow_up(self, known: Known, batches: list[Batch]) -> tuple[list[Batch], list[SourceError]]:
        """What this poll's own fills make necessary: results of archived markets, and marks of new ones."""
        settled = {row.ticker for batch in batches for row in batch.settlements}
        traded = {fill.ticker for batch in batches for fill in batch.fills}
        results: list[Batch] = []
        errors: list[SourceError] = []
        if any(ARCHIVED_TO in batch.cursors for batch in batches):
            results, errors = await side_by_side(self._archived_results((traded | known.open_tickers) - settled))
            if errors or results[0].refused:  # the archive's fills lead to the markets whose results are missing
                results.append(Batch(cursors=FILLS.ask_again(known.cursors, self._since, now=self._now())))
            settled |= {row.ticker for batch in results for row in batch.settlements}
        new = traded - settled - known.open_tickers
        marks, more_errors = await side_by_side(self._marks(new, are_all=not known.open_tickers))
        return results + marks, errors + more_errors

    async def _marks(self, tickers: Iterable[str], *, are_all: bool = True) -> Batch:
        pages = [await self._get("/markets", {"tickers": ",".join(some)}) for some in _chunks(tickers)]
        now = self._now()
        markets = (row for page in pages for row in listed(page, "markets", source=self.name))
        marks, refused = rows.convert(markets, lambda row: mark(row, now), what="market", key="ticker")
        return Batch(marks=tuple(marks), refused=tuple(refused), reread=frozenset({"market"} if are_all else ()))

    async def _fills(self, known: Known) -> Batch:
        now = self._now()
        read = FILLS.window(known.cursors, since=self._since, now=now)
        cutoff = await self._read_cutoff()
        is_archive_new = read.is_again or known.cursors.get(ARCHIVED_TO) != cutoff.isoformat()
        read_archive = is_archive_new and (read.start is None or read.start < cutoff)
        live = await self._pages("/portfolio/fills", "fills", read.start)
        archived = await self._pages("/historical/fills", "fills", read.start) if read_archive else []
        fills, refused = rows.convert(archived + live, fill, what="fill", key="fill_id")
        cursors = FILLS.advance(known.cursors, read, [f.filled_at for f in fills], is_refused=bool(refused), now=now)
        cursors |= {ARCHIVED_TO: cutoff.isoformat()} if read_archive else {}
        return Batch(fills=tuple(fills), cursors=cursors, refused=tuple(refused), reread=read.reread("fill"))

    async def _settlements(self, known: Known) -> Batch:
        now = self._now()
        read = SETTLEMENTS.window(known.cursors, since=self._since, now=now)
        ended = await self._pages("/portfolio/settlements", "settlements", read.start)
        settlements, refused = rows.convert(ended, settlement, what="settlement", key="ticker")
        cursors = SETTLEMENTS.advance(
            known.cursors, read, [s.settled_at for s in settlements], is_refused=bool(refused), now=now
        )
        reread = read.reread("settlement")
        return Batch(settlements=tuple(settlements), cursors=cursors, refused=tuple(refused), reread=reread)

    async def _archived_results(self, tickers: Iterable[str]) -> Batch:
        """How archived markets ended: their settlements are no longer listed, their results still are."""
        pages = [await self._get("/historical/markets", {"tickers": ",".join(some)}) for some in _chunks(tickers)]
        markets = (row for page in pages for row in listed(page, "markets", source=self.name))
        ended = (row for row in markets if not isinstance(row, Mapping) or row.get("result"))
        settlements, refused = rows.convert(ended, archived_settlement, what="archived market", key="ticker")
        reread = frozenset({"archived market"})
        return Batch(settlements=tuple(settlements), refused=tuple(refused), reread=reread)

    async def _positions(self) -> Batch:
        """Every market that was traded and has not settled, also where nothing is held: its figures are compared."""
        traded = await self._pages("/portfolio/positions", "market_positions", None, count_filter="total_traded")
        held, refused = rows.convert(traded, position, what="position", key="ticker")
        account = Account(positions=dict(held), unread=tuple(refused))
        return Batch(account=account, refused=account.unread, reread=frozenset({"position"}))

    async def _read_balance(self) -> Batch:
        return Batch(account=Account(balance_usd=await self._cash_usd()))

    async def _cash_usd(self) -> Decimal:
        """The balance has a limit of its own, one read a second; in between, the last one stands."""
        if self._balance is None or self._clock() - self._balance[0] > BALANCE_EVERY_S:
            asked_at = self._clock()
            page = await self._get("/portfolio/balance", {})
            try:
                self._balance = (asked_at, rows.amount(page, "balance_dollars"))
            except (BadRow, AttributeError) as error:
                raise SourceError(f"kalshi: the balance cannot be read: {error}") from error
        return self._balance[1]

    async def _read_cutoff(self) -> datetime:
        """Fills before this instant are in the archive; it moves by a day at a time, so it is read once."""
        if self._cutoff is None:
            page = await self._get("/historical/cutoff", {})
            try:
                self._cutoff = rows.instant(page, "trades_created_ts")
            except (BadRow, AttributeError) as error:
                raise SourceError(f"kalshi: the archive's cutoff cannot be read: {error}") from error
        return self._cutoff

    async def _pages(self, path: str, field: str, since: datetime | None, **query: str) -> list[Any]:
        query |= {"limit": str(PAGE_ROWS)}
        query |= {} if since is None else {"min_ts": str(int(since.timestamp()))}

        async def read(cursor: str) -> tuple[list[Any], str]:
            page = await self._get(path, query | ({"cursor": cursor} if cursor else {}))
            return listed(page, field, source=self.name), str(page.get("cursor") or "")

        return await read_pages(f"kalshi: {path}", read)

    async def _get(self, path: str, query: Mapping[str, str]) -> Any:
        url = self._url + path

        async def in_turn() -> Mapping[str, str]:  # for each attempt, as a signature holds its time
            await self._pace()
            return self._signer.headers("GET", urlsplit(url).path)

        return await self._transport.get(url, source=self.name, headers=in_turn, query=query, explain=explain)


def fill(row: Row) -> Fill:
    """One fill of the wire; its direction is `outcome_side`, else `book_side`, never the deprecated `side`/`action`."""
    side = SIDES[rows.word(row, "outcome_side" if row.get("outcome_side") else "book_side", SIDES)]
    if row.get("book_side") and SIDES[rows.word(row, "book_side", SIDES)] != side:
        raise BadRow(f"outcome_side and book_side contradict each other ({side}, {row['book_side']})")
    return Fill(
        fill_id=rows.text(row, "fill_id"),
        ticker=rows.text(row, "ticker"),
        side=side,
        count=rows.amount(row, "count_fp", unit=rows.CENTI, least=rows.CENTI),
        yes_price_usd=_price(row, "yes_price_dollars"),
        fee_usd=rows.amount(row, "fee_cost"),
        is_taker=row.get("is_taker") is True,
        filled_at=rows.instant(row, "created_time"),
    )


def settlement(row: Row) -> Settlement:
    """One settlement row of the wire: gross per side, `revenue` and `value` in whole cents."""
    return Settlement(
        ticker=rows.text(row, "ticker"),
        event_ticker=rows.text(row, "event_ticker"),
        result=Result(rows.word(row, "market_result", Result)),
        yes_count=rows.amount(row, "yes_count_fp", unit=rows.CENTI, least=ZERO),
        yes_cost_usd=rows.amount(row, "yes_total_cost_dollars"),
        no_count=rows.amount(row, "no_count_fp", unit=rows.CENTI, least=ZERO),
        no_cost_usd=rows.amount(row, "no_total_cost_dollars"),
        revenue_usd=rows.cents(row, "revenue"),
        fee_usd=rows.amount(row, "fee_cost"),
        value_usd=rows.cents(row, "value") if row.get("value") is not None else None,
        settled_at=rows.instant(row, "settled_time"),
    )


def archived_settlement(row: Row) -> Settlement:
    """The end of an archived market, as its market row tells it; what was held, the fills know."""
    value_usd = rows.optional_amount(row, "settlement_value_dollars")
    result = Result(rows.word(row, "result", Result))
    if result is Result.SCALAR and value_usd is None:
        raise BadRow("settlement_value_dollars is missing, and a scalar result means nothing without it")
    ended = "settlement_ts" if row.get("settlement_ts") else "close_time"
    return Settlement(
        ticker=rows.text(row, "ticker"),
        event_ticker=rows.text(row, "event_ticker"),
        result=result,
        yes_count=ZERO,
        yes_cost_usd=ZERO,
        no_count=ZERO,
        no_cost_usd=ZERO,
        revenue_usd=ZERO,
        fee_usd=ZERO,
        value_usd=value_usd,
        settled_at=rows.instant(row, ended),
    )


def mark(row: Row, as_of: datetime) -> Mark:
    """The book of one market; an empty one (0 and 1) is passed on as it is, for the model to keep the last good."""
    bid, ask = _price(row, "yes_bid_dollars"), _price(row, "yes_ask_dollars")
    last = _price(row, "last_price_dollars") if row.get("last_price_dollars") else ZERO  # zero: never traded
    title = rows.label(row.get("yes_sub_title"))
    return Mark(rows.text(row, "ticker"), bid, ask, as_of, title, last or None, _closes_at(row))


def _closes_at(row: Row) -> datetime | None:
    """When the market is expected to end, else when its trading does; one that makes no sense must not cost a price."""
    for field in ("expected_expiration_time", "close_time"):
        with suppress(BadRow):
            return rows.instant(row, field)
    return None


def position(row: Row) -> tuple[str, Holding]:
    """A ticker and what the venue says of it; a figure of money that it leaves out is None."""
    return rows.text(row, "ticker"), Holding(
        count=rows.amount(row, "position_fp", unit=rows.CENTI),
        cost_usd=rows.optional_amount(row, "market_exposure_dollars"),
        realized_usd=rows.optional_amount(row, "realized_pnl_dollars"),
        fees_usd=rows.optional_amount(row, "fees_paid_dollars"),
    )


def explain(status: int, body: Any) -> str:
    """What a person should do about a refusal, from the shapes that the venue answers in."""
    if status in ADVICE:
        return ADVICE[status]
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return ""
    advice = REFUSALS.get(str(error.get("details"))) or REFUSALS.get(str(error.get("code")))
    return advice or f"{error.get('code')}: {error.get('message')}"[:200]


def _price(row: Row, field: str) -> Decimal:
    price = rows.amount(row, field, least=ZERO)
    if price > 1:
        raise BadRow(f"{field} is {price}, a price is at most 1 dollar")
    return price


def _chunks(tickers: Iterable[str]) -> Iterable[tuple[str, ...]]:
    return batched(sorted(tickers), MARKETS_PER_REQUEST)
