"""The model provider: the cost and usage reports of the Admin API, and the analytics pair that follows them."""

import hmac
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import count, product
from operator import add
from typing import Any

from aiohttp import web

from pnl.simulator import paging
from pnl.simulator.nouns import DAY, HOUR, SECOND, Tokens, micros
from pnl.simulator.spending import CostLine, bill
from pnl.simulator.wire import reply, second
from pnl.simulator.world import World

BASE = "/v1/organizations"
_BILLED_AFTER = 6 * HOUR  # a day's bill is there at 06:00 UTC of the next day
_WIDTHS = {"1m": (60 * SECOND, 60, 1440), "1h": (HOUR, 24, 168), "1d": (DAY, 7, 31)}  # width, default, most
_DETAILS = ("context_window", "cost_type", "description", "inference_geo", "model", "service_tier", "token_type")
# What every call of this business has in common; null unless grouped by.
_DIMENSIONS: dict[str, str | None] = {
    "account_id": None,
    "api_key_id": "apikey_simulated",
    "context_window": "0-200k",
    "inference_geo": "global",
    "model": None,
    "service_account_id": None,
    "service_tier": "standard",
    "workspace_id": None,
}


class RefusedError(ValueError):
    """A request that the provider refuses with 400."""


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int


class Anthropic:
    """The provider's side of one organization; `now` is its clock, `admin_key` the only key it knows."""

    def __init__(self, world: World, now: Callable[[], datetime], admin_key: str) -> None:
        """Remember them."""
        self._world = world
        self._now = now
        self._admin_key = admin_key
        self._ids = count(1)

    def routes(self) -> list[web.RouteDef]:
        """Every route that this provider answers."""
        handlers = {
            "/cost_report": self._cost_report,
            "/usage_report/messages": self._usage_report,
            "/analytics/cost": self._analytics_cost,
            "/analytics/usage": self._analytics_usage,
        }
        return [web.get(BASE + path, self._answering(handler)) for path, handler in handlers.items()]

    def refusal(self, request: web.Request) -> web.Response | None:
        """The 401 or 400 for a wrong key or a missing version; both header styles are welcome."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        key = token if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not hmac.compare_digest(key.encode(), self._admin_key.encode()):
            name = "x-api-key" if scheme.lower() != "bearer" else "bearer token"
            return self.error(401, "authentication_error", f"invalid {name}")
        if "anthropic-version" not in request.headers:
            return self.error(400, "invalid_request_error", "anthropic-version: header is required")
        return None

    def error(self, status: int, kind: str, message: str) -> web.Response:
        """The error shape, its request id in the body and in the header."""
        request_id = f"req_simulated{next(self._ids):08}"
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
        return reply(body, status, {"request-id": request_id})

    # Only finished UTC days: the end is clipped to today's midnight, so a start of today is refused.
    def _cost_report(self, request: web.Request) -> dict[str, Any]:
        now = micros(self._now())
        start = _instant(request, "starting_at") // DAY * DAY
        end = min(-(-_instant(request, "ending_at", now) // DAY) * DAY, now // DAY * DAY)
        spans, more = _spans(request, "1d", start, end)
        if request.query.get("bucket_width", "1d") != "1d":
            raise RefusedError("bucket_width: Input should be '1d'")
        groups = request.query.getall("group_by[]", [])
        return _buckets(spans, more, lambda span: self._cost_rows(span, now, groups))

    def _cost_rows(self, span: _Span, now: int, groups: list[str]) -> list[dict[str, Any]]:
        if span.end + _BILLED_AFTER > now:
            return []
        lines = list(bill(self._world.tokens(span.start, span.end, self._now()), span.start))
        if "description" in groups:
            return [_cost_row(line.cents, **_described(line)) for line in lines]
        return [_cost_row(sum((line.cents for line in lines), Decimal(0)))] if lines else []

    def _usage_report(self, request: web.Request) -> dict[str, Any]:
        now, width = micros(self._now()), request.query.get("bucket_width", "1d")
        if width not in _WIDTHS:
            raise RefusedError("bucket_width: Input should be '1m', '1h' or '1d'")
        size = _WIDTHS[width][0]
        start = _instant(request, "starting_at") // size * size
        spans, more = _spans(request, width, start, min(_instant(request, "ending_at", now), now))
        groups = request.query.getall("group_by[]", [])
        models = request.query.getall("models[]", [])
        return _buckets(spans, more, lambda span: self._usage_rows(span, groups, models))

    def _usage_rows(self, span: _Span, groups: list[str], models: list[str]) -> list[dict[str, Any]]:
        used = self._used(span, models)
        shown = {name: _DIMENSIONS[name] if name in groups else None for name in _DIMENSIONS}
        if "model" in groups:
            return [{**_usage(tokens), **shown, "model": model} for model, tokens in used.items()]
        return [{**_usage(_total(used)), **shown}] if used else []

    def _used(self, span: _Span, models: list[str]) -> dict[str, Tokens]:
        used = self._world.tokens(span.start, span.end, self._now())
        return {model: tokens for model, tokens in used.items() if not models or model in models}

    def _analytics_cost(self, request: web.Request) -> dict[str, Any]:
        def row(span: _Span, used: dict[str, Tokens]) -> tuple[Decimal, dict[str, Any]]:
            cents = sum((line.cents for line in bill(used, span.start)), Decimal(0))
            return cents, {"cost": {"amount": f"{cents:f}", "list_amount": f"{cents:f}", "currency": "USD"}}

        return self._analytics(request, row)

    def _analytics_usage(self, request: web.Request) -> dict[str, Any]:
        def row(_: _Span, used: dict[str, Tokens]) -> tuple[Decimal, dict[str, Any]]:
            total = _total(used)
            tokens = sum(total.counts()[:5])
            return Decimal(tokens), {"usage": {**_usage(total), "total_tokens": tokens}}

        return self._analytics(request, row)

    def _analytics(
        self, request: web.Request, row: Callable[[_Span, dict[str, Tokens]], tuple[Decimal, dict[str, Any]]]
    ) -> dict[str, Any]:
        now = micros(self._now())
        ranked = []
        for span, (group, used) in self._analytics_groups(request, now):
            size, fields = row(span, used)
            order = Decimal(span.start) if request.query.get("order_by") == "time" else size
            shown = {"starting_at": second(span.start), "ending_at": second(span.end), "group": group, **fields}
            ranked.append((order, shown))
        ranked.sort(key=lambda pair: pair[0], reverse=request.query.get("order", "desc") == "desc")
        limit, skip = _limit(request, 20, 1000), (_page(request) or (0, ""))[0]
        more = paging.encode((skip + limit, "")) if skip + limit < len(ranked) else ""
        rows = [shown for _, shown in ranked[skip : skip + limit]]
        return {"data": rows, **_next(more), "data_refreshed_at": second(now)}

    def _analytics_groups(
        self, request: web.Request, now: int
    ) -> Iterator[tuple[_Span, tuple[dict[str, str], dict[str, Tokens]]]]:
        start = _instant(request, "starting_at")
        end = min(_instant(request, "ending_at", min(now, start + 31 * DAY)), now)
        if not start < end <= start + 31 * DAY:
            raise RefusedError("ending_at: the range must span more than nothing and at most 31 days")
        size = _WIDTHS[width][0] if (width := request.query.get("time_bucket_width")) in _WIDTHS else end - start
        starts = range(start // size * size, end, size) if width else [start]
        by_model = "model" in request.query.getall("group_by[]", [])
        for span in (_Span(at, at + size) for at in starts):
            used = self._used(span, request.query.getall("models[]", []))
            groups = [({"model": m}, {m: t}) for m, t in used.items()] if by_model else [({}, used)]
            yield from product([span], groups if used else [])

    def _answering(self, handler: Callable[[web.Request], dict[str, Any]]) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.Response:
            try:
                return reply(handler(request), headers={"request-id": f"req_simulated{next(self._ids):08}"})
            except RefusedError as refused:
                return self.error(400, "invalid_request_error", str(refused))

        return answer


def _spans(request: web.Request, width: str, start: int, end: int) -> tuple[list[_Span], str]:
    if end <= start:
        raise RefusedError("ending date must be after starting date")
    size, default, most = _WIDTHS[width]
    limit = _limit(request, default, most)
    page = _page(request)
    first = start if page is None else page[0]
    stop = first + limit * size
    more = paging.encode((stop, width)) if stop < end else ""
    return [_Span(at, at + size) for at in range(first, min(stop, end), size)], more


def _buckets(spans: list[_Span], more: str, rows: Callable[[_Span], list[dict[str, Any]]]) -> dict[str, Any]:
    data = [{"starting_at": second(s.start), "ending_at": second(s.end), "results": rows(s)} for s in spans]
    return {"data": data, **_next(more)}


def _next(more: str) -> dict[str, Any]:
    return {"has_more": bool(more), "next_page": f"page_{more}" if more else None}


def _page(request: web.Request) -> paging.Key | None:
    if not (page := request.query.get("page")):
        return None
    key = paging.decode(page.removeprefix("page_"))
    if key is None:
        raise RefusedError("page: Invalid page token")
    return key


def _limit(request: web.Request, default: int, most: int) -> int:
    text = request.query.get("limit", str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise RefusedError(f"limit: Input should be between 1 and {most}")
    return int(text)


def _instant(request: web.Request, name: str, default: int | None = None) -> int:
    text = request.query.get(name)
    if text is None and default is not None:
        return default
    try:
        return micros(datetime.fromisoformat(text or ""))
    except (ValueError, TypeError) as error:
        raise RefusedError(
            f"{name}: {'Field required' if text is None else 'Input should be a valid datetime'}"
        ) from error


def _total(used: dict[str, Tokens]) -> Tokens:
    counts = (0,) * 6
    for tokens in used.values():
        counts = tuple(map(add, counts, tokens.counts()))
    return Tokens(*counts)


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "uncached_input_tokens": tokens.uncached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.write_5m,
            "ephemeral_1h_input_tokens": tokens.write_1h,
        },
        "cache_read_input_tokens": tokens.read,
        "output_tokens": tokens.output,
        "server_tool_use": {"web_search_requests": tokens.searches},
    }


def _cost_row(cents: Decimal, **details: str | None) -> dict[str, Any]:
    empty: dict[str, Any] = defaultdict(lambda: None, details)
    return {"amount": f"{cents:f}", "currency": "USD", "workspace_id": None, **{name: empty[name] for name in _DETAILS}}


def _described(line: CostLine) -> dict[str, str | None]:
    if line.token_type is None:
        return {"cost_type": "web_search", "description": line.description}
    return {
        "context_window": "0-200k",
        "cost_type": "tokens",
        "description": line.description,
        "inference_geo": "global",
        "model": line.model,
        "service_tier": "standard",
        "token_type": line.token_type,
    }
