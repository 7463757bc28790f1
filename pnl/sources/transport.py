"""The way out: one pooled HTTP session, one deadline per request, and every failure said in plain words."""

import asyncio
import json
import os
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from aiolimiter import AsyncLimiter

from pnl import __version__
from pnl.errors import SourceBusy, SourceError, SourceRefused
from pnl.records import Account, Batch

DEADLINE_S = 3.0
CONNECTIONS_PER_HOST = 5
LARGEST_BODY_BYTES = 8 * 1024 * 1024
MOST_PAGES = 1000
HTTP_REFUSED = range(400, 500)

OnAnswer = Callable[[str, str], None]
"""Told of each answer, for a progress display: who asked, and the path."""

Explain = Callable[[int, Any], str]
Query = Mapping[str, str] | list[tuple[str, str]]


class Transport:
    """The HTTP session that all sources share; opened and closed with `async with`."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, on_answer: OnAnswer | None = None) -> None:
        self._deadline_s = deadline_s
        self._on_answer = on_answer
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=CONNECTIONS_PER_HOST, keepalive_timeout=75),
            timeout=aiohttp.ClientTimeout(total=self._deadline_s),
            headers={"User-Agent": f"pnl/{__version__}", "Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(
        self,
        url: str,
        *,
        source: str,
        headers: Mapping[str, str],
        query: Query = (),  # type: ignore[assignment]
        explain: Explain | None = None,
    ) -> Any:
        """One GET, answered as JSON.

        Args:
            url: Absolute, without a query.
            source: Who asks, for the error text.
            headers: Sent to this host only: a redirect would carry keys elsewhere, so none is followed.
            query: Parameters; a list keeps repeated names.
            explain: Turns a refusal (status and decoded body) into what the person should do about it.

        Returns:
            The decoded body: numbers with a point are `Decimal`, and so are NaN and Infinity, for the row to refuse.
            An error text never holds a header, even where the server sent one back.

        Raises:
            SourceRefused: The answer was HTTP 4xx.
            SourceBusy: It was HTTP 429: too many requests.
            SourceError: No answer within the deadline, body included, or one that is not JSON.
        """
        where = f"{source}: {urlsplit(url).path} at {urlsplit(url).netloc}"
        status, body = await self._fetch(where, url, headers, query)
        if self._on_answer is not None:
            self._on_answer(source, urlsplit(url).path)
        if status == HTTPStatus.OK:
            return _decode(where, body, headers)
        advice = explain(status, _decode_leniently(_without_keys(body, headers))) if explain is not None else ""
        msg = f"{where} answered HTTP {status}{advice and ': ' + advice}"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise SourceBusy(msg)
        if status in HTTP_REFUSED:
            raise SourceRefused(msg, status)
        raise SourceError(msg)

    async def _fetch(self, where: str, url: str, headers: Mapping[str, str], query: Query) -> tuple[int, bytes]:
        # The causes are left out on purpose: the repr of aiohttp's errors holds every request header, keys included.
        if self._session is None:
            raise RuntimeError("the transport is used inside `async with` only")
        try:
            async with self._session.get(url, headers=headers, params=query, allow_redirects=False) as response:
                return response.status, await _bounded(where, response)
        except TimeoutError:
            msg = f"{where} gave no whole answer within {self._deadline_s:g} s"
        except aiohttp.ClientConnectorError as error:
            msg = f"{where} cannot be reached ({_reason(error.os_error)}); is the address right?"
        except aiohttp.ClientError as error:
            msg = f"{where} broke off ({type(error).__name__})"
        raise SourceError(msg)


def _reason(error: OSError) -> str:
    number = error.errno or 0
    if isinstance(error, ssl.SSLError) or number <= 0:  # such numbers are not the system's
        return error.strerror or "no connection"
    return os.strerror(number)


async def _bounded(where: str, response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):  # counts inflated bytes: a gzip bomb ends here too
        body += chunk
        if len(body) > LARGEST_BODY_BYTES:
            raise SourceError(f"{where} sent more than {LARGEST_BODY_BYTES >> 20} MB, which no page of it should")
    return bytes(body)


def _decode(where: str, body: bytes, headers: Mapping[str, str]) -> Any:
    try:
        return json.loads(body, parse_float=_number, parse_constant=Decimal)
    except (ValueError, RecursionError):
        head = _without_keys(body, headers)[:60]
        raise SourceError(
            f"{where} answered with something that is not JSON (it begins {head!r}); nothing of it was used"
        ) from None


def _number(literal: str) -> Decimal:
    try:
        return Decimal(literal)
    except InvalidOperation:  # an exponent beyond all reason
        return Decimal("NaN")


def _decode_leniently(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _without_keys(body: bytes, headers: Mapping[str, str]) -> str:
    """What a server said, without the keys that it may have sent back."""
    text = body.decode("utf-8", "replace")
    for word in " ".join(headers.values()).split():
        text = text.replace(word, "***")
    return text


class Paced:
    """Keeps requests within a rate, so that the venue never has to refuse one."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._limiter = AsyncLimiter(burst, burst / per_second)

    async def __call__(self) -> None:
        """Wait until one more request is within the rate."""
        await self._limiter.acquire()


async def read_pages(what: str, read: Callable[[str], Awaitable[tuple[list[Any], str]]]) -> list[Any]:
    """All pages of a list, one after the other.

    Args:
        what: The list, for the error text.
        read: Cursor ("" for the first page) to that page's rows and the next cursor, "" behind the last.

    Raises:
        SourceError: A cursor comes twice or the pages do not end: half a list is not believed.
    """
    listed: list[Any] = []
    seen = {""}
    cursor = ""
    for _ in range(MOST_PAGES):
        page, cursor = await read(cursor)
        listed += page
        if not cursor:
            return listed
        if cursor in seen:
            break
        seen.add(cursor)
    raise SourceError(f"{what} repeats its cursor {cursor[:40]!r}, so the list has no end; nothing of it was used")


def listed(page: Any, field: str, *, source: str) -> list[Any]:
    """The rows of a page.

    Raises:
        SourceError: It holds no such list.
    """
    found = page.get(field) if isinstance(page, Mapping) else None
    if not isinstance(found, list):
        raise SourceError(f"{source}: the answer holds no list of {field}; is PNL_{source.upper()}_URL right?")
    return found


async def side_by_side(*feeds: Awaitable[Batch]) -> tuple[list[Batch], list[SourceError]]:
    """Read feeds at once; one that fails with a `SourceError` leaves the others their answers."""
    results = await asyncio.gather(*feeds, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, SourceError):
            raise result
    good = [result for result in results if isinstance(result, Batch)]
    return good, [result for result in results if isinstance(result, SourceError)]


def merge(batches: Iterable[Batch], errors: Iterable[SourceError] = ()) -> Batch:
    """The records of several feeds as one batch; what failed is its `error`."""
    batches = list(batches)
    accounts = [batch.account for batch in batches if batch.account is not None]
    account = Account(
        balance_usd=next((a.balance_usd for a in accounts if a.balance_usd is not None), None),
        positions={ticker: count for a in accounts for ticker, count in a.positions.items()},
    )
    return Batch(
        fills=tuple(fill for batch in batches for fill in batch.fills),
        settlements=tuple(row for batch in batches for row in batch.settlements),
        marks=tuple(mark for batch in batches for mark in batch.marks),
        cost_days=tuple(day for batch in batches for day in batch.cost_days),
        deals=tuple(deal for batch in batches for deal in batch.deals),
        account=account if accounts else None,
        cursors={name: cursor for batch in batches for name, cursor in batch.cursors.items()},
        refused=tuple(line for batch in batches for line in batch.refused),
        error="; ".join(dict.fromkeys(map(str, errors))) or None,
    )
