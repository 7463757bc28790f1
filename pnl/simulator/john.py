"""Revenue: the deals endpoint of our own shape, and the same deals as Stripe balance transactions."""

import hmac
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import count
from typing import Any

from aiohttp import web

from pnl.simulator import paging
from pnl.simulator.nouns import DAY, SECOND, Deal, micros, moment
from pnl.simulator.wire import fixed, reply, second
from pnl.simulator.world import World

DEALS = "/deals"
TRANSACTIONS = "/v1/balance_transactions"


class John:
    """Both shapes of the same deals; `now` is the clock, `token` the only bearer token."""

    def __init__(self, world: World, now: Callable[[], datetime], token: str) -> None:
        """Remember them."""
        self._world = world
        self._now = now
        self._token = token
        self._ids = count(1)

    def routes(self) -> list[web.RouteDef]:
        """The two routes."""
        return [web.get(DEALS, self._deals), web.get(TRANSACTIONS, self._transactions)]

    def refusal(self, request: web.Request) -> web.Response | None:
        """The 401 for a wrong or missing token, in the shape of the route."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        if request.path == TRANSACTIONS:
            return _stripe_error(401, "Invalid API Key provided")
        return _error(401, "unauthorized")

    async def _deals(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "100")
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000:  # noqa: PLR2004
            return _error(400, "limit must be between 1 and 1000")
        try:
            since = micros(datetime.fromisoformat(request.query.get("updated_since", "1970-01-01T00:00:00Z")))
        except (ValueError, TypeError):
            return _error(400, "updated_since must be RFC 3339 with an offset")
        deals = [deal for deal in self._world.deals(self._now()) if deal.updated_at >= since]
        page, cursor = paging.oldest_first(deals, lambda deal: deal.key, int(limit), request.query.get("cursor", ""))
        return reply({"data": [deal_row(deal) for deal in page], "next_cursor": cursor or None})

    async def _transactions(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "10")
        if not limit.isdecimal() or not 1 <= int(limit) <= 100:  # noqa: PLR2004
            return _stripe_error(400, f"Invalid integer: {limit}")
        now = micros(self._now())
        try:
            rows = [row for row in _stripe_rows(self._world.deals(self._now()), now) if _is_asked_for(request, row)]
        except ValueError as error:
            return _stripe_error(400, str(error))
        rows.sort(key=lambda row: (row["created"], row["id"]), reverse=True)
        ids = [row["id"] for row in rows]
        after = request.query.get("starting_after")
        if after and after not in ids:
            return _stripe_error(400, f"No such balance_transaction: '{after}'")
        start = ids.index(after) + 1 if after else 0
        page = rows[start : start + int(limit)]
        more = start + int(limit) < len(rows)
        return reply({"object": "list", "url": TRANSACTIONS, "has_more": more, "data": page})


def deal_row(deal: Deal) -> dict[str, Any]:
    """A deal as it stands; a closing day is a date, and now and then a full instant."""
    is_instant = deal.amount_cents % 5 == 0
    return {
        "id": deal.deal_id,
        "amount": fixed(deal.amount_cents, 2),
        "currency": "USD",
        "closed_date": second(deal.closed_at) if is_instant else f"{moment(deal.closed_at):%Y-%m-%d}",
        "status": deal.status,
        "updated_at": second(deal.updated_at),
        "description": deal.description,
    }


# A charge when a deal is paid, a refund when it is given back, and on Fridays what has come in is paid out.
def _stripe_rows(deals: Sequence[Deal], now: int) -> Iterator[dict[str, Any]]:
    collected: dict[int, int] = {}
    for deal in deals:
        if deal.paid_at is None:
            continue
        fee = deal.amount_cents * 29 // 1000 + 30
        name, gross, words = deal.deal_id, deal.amount_cents, deal.description
        yield _row(f"{name}-charge", "charge", cents=gross, fee=fee, at=deal.paid_at, now=now, description=words)
        friday = ((deal.paid_at // DAY + 6) // 7 + 1) * 7 * DAY - 6 * DAY
        collected[friday] = collected.get(friday, 0) + deal.amount_cents - fee
        if deal.refunded_at is not None:
            at = deal.refunded_at
            yield _row(f"{name}-refund", "refund", cents=-gross, fee=0, at=at, now=now, description=words)
    for friday, cents in collected.items():
        if friday <= now:
            name = f"payout-{friday // DAY}"
            yield _row(name, "payout", cents=-cents, fee=0, at=friday, now=now, description="STRIPE PAYOUT")


def _row(name: str, kind: str, *, cents: int, fee: int, at: int, now: int, description: str) -> dict[str, Any]:
    words = {"currency": "usd", "description": "Stripe processing fees", "type": "stripe_fee"}
    detail = {"amount": fee, "application": None, **words}
    available_at = at + 2 * DAY if kind == "charge" else at
    return {
        "id": f"txn_{name}",
        "object": "balance_transaction",
        "amount": cents,
        "available_on": available_at // SECOND,
        "balance_type": "payments",
        "created": at // SECOND,
        "currency": "usd",
        "description": description,
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [detail] if fee else [],
        "net": cents - fee,
        "reporting_category": kind,
        "source": f"{'po' if kind == 'payout' else 'ch'}_{name}",
        "status": "available" if available_at <= now else "pending",
        "type": kind,
    }


def _is_asked_for(request: web.Request, row: dict[str, Any]) -> bool:
    query = request.query
    created: int = row["created"]
    return bool(
        int(query.get("created[gte]", 0)) <= created <= int(query.get("created[lte]", created))
        and int(query.get("created[gt]", -1)) < created < int(query.get("created[lt]", created + 1))
        and int(query.get("created", created)) == created
        and query.get("type", row["type"]) == row["type"]
        and query.get("currency", "usd") == row["currency"]
    )


def _error(status: int, message: str) -> web.Response:
    return reply({"error": {"message": message}}, status)


def _stripe_error(status: int, message: str) -> web.Response:
    return reply({"error": {"message": message, "type": "invalid_request_error"}}, status)
