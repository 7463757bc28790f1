"""The way out: a pool of connections per source, one deadline per request, and every failure said in plain words.

What may pass at once is tried again within the deadline; a source that goes on failing is left alone by its breaker.
"""

import asyncio
import json
import os
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import aiohttp
from aiolimiter import AsyncLimiter

from pnl import __version__
from pnl.errors import SourceBusy, SourceError, SourceRefused, SourceUnavailable
from pnl.records import Account, Batch
from pnl.sources.breaker import FAILURES, REST_S, Breaker, time_of_day
from pnl.sources.retry import Patience, http_date, retry_after_s

DEADLINE_S = 3.0
CONNECTIONS_PER_HOST = 5
LARGEST_BODY_BYTES = 8 * 1024 * 1024
MOST_PAGES = 1000
HALF_A_SECOND = 0.5  # by so much a time that is cut to its second is early, on the average
HTTP_REFUSED = range(400, 500)
HTTP_OVERLOADED = 529  # Anthropic's own
HTTP_UNAVAILABLE = frozenset({500, 502, 503, 504, HTTP_OVERLOADED})
HTTP_LIMITED = frozenset({429, 503, HTTP_OVERLOADED})  # whose Retry-After is kept

OnAnswer = Callable[[str, str], None]
"""Told of each answer, for a progress display: who asked, and the path."""

Explain = Callable[[int, Any], str]
Query = Mapping[str, str] | list[tuple[str, str]]
Headers = Mapping[str, str] | Callable[[], Awaitable[Mapping[str, str]]]
"""What goes with a request; a function is called for each attempt, to wait for its turn and to sign anew."""


@dataclass(frozen=True, slots=True, repr=False)
class _Request:
    source: str
    url: str
    headers: Headers
    query: Query
    explain: Explain | None

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def where(self) -> str:
        return f"{self.source}: {self.path} at {urlsplit(self.url).netloc}"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str | None
    body: bytes


class Requested(NamedTuple):
    """When requests were sent and answered, in seconds of `time.perf_counter`: see `records.Trace`."""

    requested: float
    first_byte: float
    body: float


class Transport:
    """What all sources ask through, each with connections of its own; opened and closed with `async with`.

    Args:
        deadline_s: Seconds for a request, its body and all its attempts included.
        on_answer: Told of each answer.
        breaker_failures: More than so many failures of a source in a row, and it is left alone.
        breaker_s: Seconds until it is asked again.
        clock: Seconds on any clock that only goes forward.
        now: The time of day, aware; for HTTP dates and for texts.
        sleep: How to wait between two attempts.

    Attributes:
        breakers: By source, of those that were asked; only to be looked at.
        ahead_s: By source, of those that tell the time, by how many seconds their clock was ahead of this machine's at
            the last answer; true to about a second, as they tell whole ones.
    """

    def __init__(
        self,
        *,
        deadline_s: float = DEADLINE_S,
        on_answer: OnAnswer | None = None,
        breaker_failures: int = FAILURES,
        breaker_s: float = REST_S,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.breakers: dict[str, Breaker] = {}
        self.ahead_s: dict[str, float] = {}
        self._make_breaker = partial(Breaker, failures=breaker_failures, rest_s=breaker_s, clock=clock, now=now)
        self._deadline_s = deadline_s
        self._on_answer = on_answer
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._requested: dict[str, Requested] = {}
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        for session in self._sessions.values():
            await session.close()

    def _session_of(self, source: str) -> aiohttp.ClientSession:
        """The pool of one source: connections that hang there are none that another one waits for."""
        if not self._is_open:
            raise RuntimeError("the transport is used inside `async with` only")
        if source not in self._sessions:
            self._sessions[source] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit_per_host=CONNECTIONS_PER_HOST, keepalive_timeout=75),
                headers={"User-Agent": f"pnl/{__version__}", "Accept": "application/json"},
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=[_send_once],
            )
        return self._sessions[source]

    async def get(
        self,
        url: str,
        *,
        source: str,
        headers: Headers,
        query: Query = (),  # type: ignore[assignment]
        explain: Explain | None = None,
    ) -> Any:
        """One GET, answered as JSON.

        Args:
            url: Absolute, without a query.
            source: Who asks, for the error text and for its breaker.
            headers: Sent to this host only: a redirect would carry keys elsewhere, so none is followed.
            query: Parameters; a list keeps repeated names.
            explain: Turns a refusal (status and decoded body) into what the person should do about it.

        Returns:
            The decoded body: numbers with a point are `Decimal`, and so are NaN and Infinity, for the row to refuse.
            A field that an object names twice is `TWICE`, for the row to refuse too.
            An error text never holds a header, even where the server sent one back.

        Raises:
            SourceResting: The source failed too often just now and was not asked.
            SourceRefused: The answer was HTTP 4xx.
            SourceBusy: It was HTTP 429, too many requests, or 503 with Retry-After.
            SourceUnavailable: It was HTTP 5xx, or the connection failed.
            SourceError: No answer within the deadline, body included, or one that is not JSON.
        """
        request = _Request(source, url, headers, query, explain)
        try:
            async with self._breaker(source).guard() as permit:
                patience = Patience(self._deadline_s, may_retry=permit.may_retry)
                return await patience.retrying(self._sleep)(self._attempt, request, patience)
        except SourceError as error:
            # Its frames and its context hold a whole body, in a circle that only the garbage collector would break.
            error.__context__ = None
            raise error.with_traceback(None) from None

    def take_requested(self, source: str) -> Requested | None:
        """When a source's requests since the last such question were sent and answered; None: none was answered."""
        return self._requested.pop(source, None)

    def _note(self, source: str, requested: float, first_byte: float) -> None:
        """Take note of a request whose answer is whole now, among those of the same poll."""
        before = self._requested.get(source)
        if before is not None:
            requested, first_byte = min(before.requested, requested), min(before.first_byte, first_byte)
        self._requested[source] = Requested(requested, first_byte, time.perf_counter())

    def _compare_clocks(self, source: str, date: str) -> None:
        with suppress(ValueError, OverflowError):
            self.ahead_s[source] = (http_date(date) - self._now()).total_seconds() + HALF_A_SECOND

    def _breaker(self, source: str) -> Breaker:
        if source not in self.breakers:
            self.breakers[source] = self._make_breaker(source)
        return self.breakers[source]

    async def _attempt(self, request: _Request, patience: Patience) -> Any:
        headers = await request.headers() if callable(request.headers) else request.headers
        began = self._clock()
        try:
            answer = await self._fetch(request, headers, patience.left_s)
        finally:
            patience.left_s -= self._clock() - began
        if self._on_answer is not None:
            self._on_answer(request.source, request.path)
        if answer.status == HTTPStatus.OK:
            return _decode(request.where, answer.body, headers)
        raise _failure(request, answer, headers, self._now())

    async def _fetch(self, request: _Request, headers: Mapping[str, str], left_s: float) -> _Answer:
        # The causes are left out on purpose: the repr of aiohttp's errors holds every request header, keys included.
        session = self._session_of(request.source)
        where, timeout = request.where, aiohttp.ClientTimeout(total=left_s)
        requested = time.perf_counter()
        try:
            async with session.get(
                request.url, headers=headers, params=request.query, timeout=timeout, allow_redirects=False
            ) as response:
                first_byte = time.perf_counter()
                self._compare_clocks(request.source, response.headers.get("Date", ""))
                body = await _bounded(where, response)
                self._note(request.source, requested, first_byte)
                return _Answer(response.status, response.headers.get("Retry-After"), body)
        except TimeoutError:
            failure = SourceError(f"{where} gave no whole answer within {self._deadline_s:g} s")
        except aiohttp.ClientConnectorError as error:
            reason = _reason(error.os_error)
            failure = SourceUnavailable(f"{where} cannot be reached ({reason}); is the address right?")
        except aiohttp.ClientError as error:
            failure = SourceUnavailable(f"{where} broke off ({type(error).__name__})")
        raise failure


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a GET twice when a connection breaks: that is decided, paced and counted here."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(type(error).__name__) from None


def _failure(request: _Request, answer: _Answer, headers: Mapping[str, str], now: datetime) -> SourceError:
    """An answer other than 200, as what it means."""
    status, said = answer.status, f"{request.where} answered HTTP {answer.status}"
    wait_s = retry_after_s(answer.retry_after, now) if status in HTTP_LIMITED else None
    if wait_s is not None:
        return SourceBusy(f"{said}: limited, asked again at {time_of_day(now, wait_s)}", wait_s)
    body = _decode_leniently(_without_keys(answer.body, headers))
    advice = request.explain(status, body) if request.explain is not None else ""
    said += advice and f": {advice}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return SourceBusy(said)
    if status in HTTP_REFUSED:
        return SourceRefused(said, status)
    return SourceUnavailable(said) if status in HTTP_UNAVAILABLE else SourceError(said)


def _reason(error: OSError) -> str:
    number = error.errno or 0
    if isinstance(error, ssl.SSLError) or number <= 0:  # such numbers are not the system's
        return error.strerror or "no connection"
    return os.strerror(number)


async def _bounded(where: str, response: aiohttp.ClientResponse) -> bytes:
    too_much = SourceError(f"{where} sent more than {LARGEST_BODY_BYTES >> 20} MB, which no page of it should")
    if (response.content_length or 0) > LARGEST_BODY_BYTES:
        raise too_much
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):  # counts inflated bytes: a gzip bomb ends here too
        body += chunk
        if len(body) > LARGEST_BODY_BYTES:
            raise too_much
    return bytes(body)


class _Twice:
    """Stands for the value of a field that an object names twice: neither of the two can be believed."""

    def __repr__(self) -> str:
        return "given twice"


TWICE = _Twice()


def _decode(where: str, body: bytes, headers: Mapping[str, str]) -> Any:
    try:
        decoded = json.loads(body.decode(), parse_float=_number, parse_constant=Decimal, object_pairs_hook=_fields)
    except (ValueError, RecursionError):
        head = _without_keys(body, headers)[:60]
        raise SourceError(
            f"{where} answered with something that is not JSON (it begins {head!r}); nothing of it was used"
        ) from None
    if isinstance(decoded, dict) and TWICE in decoded.values():  # within a row, it is for the row to refuse
        raise SourceError(f"{where} answered with a field that is given twice; nothing of it was used")
    return decoded


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        fields |= {name: TWICE for name, count in counts.items() if count > 1}
    return fields


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
        positions=next((a.positions for a in accounts if a.positions is not None), None),
        unread=tuple(row for a in accounts for row in a.unread),
    )
    return Batch(
        fills=tuple(fill for batch in batches for fill in batch.fills),
        settlements=tuple(row for batch in batches for row in batch.settlements),
        marks=tuple(mark for batch in batches for mark in batch.marks),
        cost_days=tuple(day for batch in batches for day in batch.cost_days),
        deals=tuple(deal for batch in batches for deal in batch.deals),
        account=account if accounts else None,
        cursors={name: cursor for batch in batches for name, cursor in batch.cursors.items()},
        refused=tuple(row for batch in batches for row in batch.refused),
        reread=frozenset().union(*(batch.reread for batch in batches)),
        error="; ".join(dict.fromkeys(map(str, errors))) or None,
    )
