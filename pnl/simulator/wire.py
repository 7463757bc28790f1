"""How numbers and instants are written on the wire."""

from typing import Any

import msgspec
from aiohttp import web

from pnl.simulator.nouns import moment

_encode = msgspec.json.Encoder().encode


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=_encode(body), status=status, headers=headers, content_type="application/json")


def instant(at: int) -> str:
    """RFC 3339 in UTC with six decimals."""
    return moment(at).isoformat(timespec="microseconds")[:-6] + "Z"


def second(at: int) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return moment(at).isoformat(timespec="seconds")[:-6] + "Z"


def fixed(units: int, digits: int) -> str:
    """Integer units of 10**-digits as a decimal string with exactly that many decimals."""
    sign, whole = ("-", -units) if units < 0 else ("", units)
    return f"{sign}{whole // 10**digits}.{whole % 10**digits:0{digits}}"


def money(micro_dollars: int) -> str:
    """Dollars with six decimals."""
    return fixed(micro_dollars, 6)


def price(units: int) -> str:
    """Dollars with four decimals."""
    return fixed(units, 4)


def count(units: int) -> str:
    """Contracts with two decimals."""
    return fixed(units, 2)
