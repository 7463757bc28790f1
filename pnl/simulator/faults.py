"""The faults: each a small thing that an upstream does wrong, with a name and one sentence.

Faults of data add a bad row, or change a good one for as long as they last: what is true in the end stays the same.
"""

import json
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Literal

from pnl.simulator.front import SOURCES, Answer, Exchange, Fault, Harm
from pnl.simulator.living import HOSTILE

FAULTS: dict[str, Fault] = {}
"""Every fault by name."""

DRIP_S = 0.05
MEGABYTE = 1 << 20
HUGE_BYTES = 64 * MEGABYTE
BOMB_BYTES = 256 * MEGABYTE
AHEAD = timedelta(minutes=5)
BACK = timedelta(hours=-2)

type Act = Callable[[Exchange], Awaitable[None]]
type Page = dict[str, Any]
type Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Names:
    """Where an answer keeps its rows, and what their fields are called; None: they have no such field."""

    rows: str
    key: str
    amount: str
    count: str | None = None
    time: str | None = None
    text: str | None = None


_FILLS = Names("fills", "fill_id", "fee_cost", count="count_fp", time="created_time")
_VENUE = "/trade-api/v2"
_PROVIDER = "/v1/organizations"
_NAMES = {
    f"{_VENUE}/portfolio/fills": _FILLS,
    f"{_VENUE}/historical/fills": _FILLS,
    f"{_VENUE}/portfolio/settlements": Names(
        "settlements", "ticker", "yes_total_cost_dollars", count="yes_count_fp", time="settled_time"
    ),
    f"{_VENUE}/portfolio/positions": Names("market_positions", "ticker", "position_fp"),
    f"{_VENUE}/markets": Names("markets", "ticker", "yes_bid_dollars", count="yes_ask_dollars", text="yes_sub_title"),
    f"{_PROVIDER}/cost_report": Names("results", "description", "amount", text="description"),
    f"{_PROVIDER}/usage_report/messages": Names("results", "model", "output_tokens", count="output_tokens"),
    "/deals": Names("data", "id", "amount", time="updated_at", text="description"),
}
_MARK = "!"  # what a fault puts before a cursor to know it again
_AGAIN = "#again"  # what tells a field from one of the same name, until it is written
_UNPAGED = f"{_VENUE}/markets"  # asked for by name, so that its first page holds them all


def _as_written(act: Act) -> Act:
    return act


def _fault[Written: Callable[..., Any]](
    harm: Harm | Mapping[str, Harm],
    through: Callable[[Any], Act] = _as_written,
    *,
    begins: Literal["refused", "connected", "asked"] = "asked",
) -> Callable[[Written], Written]:
    """Add what is written below to the list, under its own name and sentence; `through` makes an act of it."""
    named = harm if isinstance(harm, Mapping) else dict.fromkeys(SOURCES, harm)

    def known(written: Written) -> Written:
        name = written.__name__
        FAULTS[name] = Fault(name, written.__doc__ or "", through(written), named, begins)
        return written

    return known


# --- The connection.


@_fault(Harm.UNREAD)
async def hang(exchange: Exchange) -> None:
    """It takes the request and never answers."""
    await exchange.until_left()


@_fault(Harm.UNREAD)
async def slow_drip(exchange: Exchange) -> None:
    """It answers a byte at a time, each long before anybody loses patience."""
    answer = await exchange.good()
    await exchange.drip(answer.head + answer.body, every_s=DRIP_S)


@_fault(Harm.UNREAD, begins="refused")
async def refused(exchange: Exchange) -> None:
    """Nobody listens at its address."""
    exchange.reset()  # for a connection that was there before


@_fault(Harm.UNREAD, begins="connected")
async def reset_on_connect(exchange: Exchange) -> None:
    """It resets each connection as soon as it is made."""
    exchange.reset()


@_fault(Harm.UNREAD)
async def reset_in_body(exchange: Exchange) -> None:
    """It resets the connection in the middle of a body."""
    answer = await exchange.good()
    await exchange.send(answer.head, answer.body[: exchange.dice.randrange(len(answer.body))])
    exchange.reset()


@_fault(Harm.UNREAD)
async def cut_short(exchange: Exchange) -> None:
    """It ends the connection in good order before the promised length is there."""
    answer = await exchange.good()
    await exchange.send(answer.head, answer.body[: exchange.dice.randrange(len(answer.body))])
    exchange.hang_up()


@_fault(Harm.UNREAD)
async def not_http(exchange: Exchange) -> None:
    """It answers in another protocol."""
    await exchange.send(b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n")
    exchange.hang_up()


@_fault(Harm.UNREAD)
async def bad_chunks(exchange: Exchange) -> None:
    """It names the length of a chunk in letters that are no number."""
    await exchange.send(_head("Transfer-Encoding: chunked"), b'2\r\n{"\r\nlots\r\n')
    exchange.hang_up()


@_fault(Harm.UNREAD)
async def huge_body(exchange: Exchange) -> None:
    """It answers 64 MB of nothing in particular."""
    blank = b" " * MEGABYTE
    await exchange.send(_head(f"Content-Length: {HUGE_BYTES}"), *[blank] * (HUGE_BYTES // MEGABYTE))


@_fault(Harm.UNREAD)
async def gzip_bomb(exchange: Exchange) -> None:
    """It answers a few kilobytes that become 256 MB when they are inflated."""
    packed = zlib.compressobj(wbits=31)
    head = packed.compress(b" ") + packed.flush(zlib.Z_FULL_FLUSH)
    block = packed.compress(b" " * MEGABYTE) + packed.flush(zlib.Z_FULL_FLUSH)  # stands alone, so it can be repeated
    await exchange.send(_head("Content-Encoding: gzip", "Connection: close"), head, *[block] * (BOMB_BYTES // MEGABYTE))
    exchange.hang_up()


def _head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: application/json", *lines, "", ""]).encode()


# --- The answer as a whole.


def _instead[Made: Answer](make: Callable[[Exchange], Made]) -> Act:
    async def act(exchange: Exchange) -> None:
        await exchange.answer(make(exchange))

    return act


@_fault(Harm.UNREAD, _instead)
def server_error(_: Exchange) -> Answer:
    """It answers 500."""
    return Answer(b"Internal Server Error", 500, {"Content-Type": "text/plain"})


@_fault(Harm.UNREAD, _instead)
def busy(_: Exchange) -> Answer:
    """It answers 429 and does not say when to come back."""
    return Answer(b'{"error": "too many requests"}', 429)


@_fault(Harm.UNREAD, _instead)
def busy_for_a_second(_: Exchange) -> Answer:
    """It answers 429 and asks to come back after a second."""
    return Answer(b"", 429, {"Retry-After": "1"})


@_fault(Harm.UNREAD, _instead)
def key_refused(_: Exchange) -> Answer:
    """It answers 401 to a key that was good until now."""
    return Answer(b'{"error": {"code": "authentication_error", "message": "unauthorized"}}', 401)


@_fault({"kalshi": Harm.UNREAD}, _instead)
def clock_off(_: Exchange) -> Answer:
    """Its clock is off, so that every signature looks expired to it."""
    return Answer(b'{"error": {"code": "header_timestamp_expired", "message": "header timestamp expired"}}', 401)


@_fault(Harm.UNREAD, _instead)
def redirect_found(exchange: Exchange) -> Answer:
    """It sends everybody to another host with 302."""
    return Answer(b"", 302, {"Location": exchange.canary_url})


@_fault(Harm.UNREAD, _instead)
def redirect_temporary(exchange: Exchange) -> Answer:
    """It sends everybody to another host with 307, which keeps method and headers."""
    return Answer(b"", 307, {"Location": exchange.canary_url})


@_fault(Harm.UNREAD, _instead)
def html_with_200(_: Exchange) -> Answer:
    """It says 200 and shows a page for people."""
    page = b"<!doctype html><title>Maintenance</title><h1>We will be back soon.</h1>"
    return Answer(page, headers={"Content-Type": "text/html"})


@_fault(Harm.UNREAD, _instead)
def empty_with_200(_: Exchange) -> Answer:
    """It says 200 and nothing else."""
    return Answer(b"")


@_fault(Harm.UNREAD, _instead)
def null_body(_: Exchange) -> Answer:
    """Its whole answer is null."""
    return Answer(b"null")


@_fault(Harm.UNREAD, _instead)
def other_shape(_: Exchange) -> Answer:
    """It answers in a shape that nobody described."""
    return Answer(b'{"status": "ok", "result": {"items": [], "total": 0}}')


@_fault(Harm.UNREAD, _instead)
def deep_nesting(_: Exchange) -> Answer:
    """Its answer is a hundred thousand lists within each other."""
    return Answer(b"[" * 100_000 + b"]" * 100_000)


@_fault(Harm.UNREAD, _instead)
def endless_number(_: Exchange) -> Answer:
    """It answers a number of 5,000 digits."""
    return Answer(b'{"data": [], "cursor": ' + b"9" * 5_000 + b"}")


def _body(change: Callable[[bytes, Random], bytes]) -> Act:
    async def act(exchange: Exchange) -> None:
        answer = await exchange.good()
        await exchange.answer(replace(answer, body=change(answer.body, exchange.dice)))

    return act


@_fault(Harm.UNREAD, _body)
def truncated_json(body: bytes, dice: Random) -> bytes:
    """Its JSON ends in the middle, with a length that agrees."""
    return body[: dice.randrange(1, len(body))]


@_fault(Harm.UNREAD, _body)
def byte_order_mark(body: bytes, _: Random) -> bytes:
    """It puts a byte order mark before its JSON."""
    return b"\xef\xbb\xbf" + body


@_fault(Harm.UNREAD, _body)
def not_utf8(body: bytes, _: Random) -> bytes:
    """A text in its JSON is in Latin-1."""
    return body.replace(b"{", b'{"caf\xe9": 1, ', 1)


# --- Pages.


def _page(change: Callable[[Page, Exchange], Page]) -> Act:
    """Change each answer that holds a list."""

    async def act(exchange: Exchange) -> None:
        answer = await exchange.good(cursor=exchange.cursor.lstrip(_MARK))
        if exchange.path in _NAMES and answer.status == 200:  # noqa: PLR2004
            page = change(json.loads(answer.body), exchange)
            answer = replace(answer, body=json.dumps(page).replace(_AGAIN, "").encode())
        await exchange.answer(answer)

    return act


def _rows(page: Page, names: Names) -> list[Any]:
    """The rows themselves; of a report, the newest bucket's that has any."""
    if names.rows != "results":
        found: list[Any] = page[names.rows]
        return found
    return next((bucket["results"] for bucket in reversed(page["data"]) if bucket["results"]), [])


def _listed(exchange: Exchange) -> str:
    """The field that holds what is paged: rows, or the buckets of a report."""
    rows = _NAMES[exchange.path].rows
    return "data" if rows == "results" else rows


def _with_cursor(page: Page, cursor: str) -> Page:
    if "has_more" in page:
        return {**page, "has_more": bool(cursor), "next_page": cursor or None}
    name = "next_cursor" if "next_cursor" in page else "cursor"
    return {**page, name: cursor}


def _detour(page: Page, exchange: Exchange, first: Page) -> Page:
    """On the first visit of a page, `first`, whose cursor leads to the page itself."""
    if exchange.path == _UNPAGED or exchange.cursor.startswith(_MARK):
        return page
    return _with_cursor(first, _MARK + exchange.cursor)


@_fault(Harm.UNREAD, _page)
def other_list(page: Page, exchange: Exchange) -> Page:
    """An object stands where a list should be."""
    name = _listed(exchange)
    return {**page, name: dict(enumerate(page[name]))}


@_fault(Harm.UNSEEN, _page)
def page_twice(page: Page, exchange: Exchange) -> Page:
    """It gives each page twice."""
    return _detour(page, exchange, page)


@_fault(Harm.UNSEEN, _page)
def empty_page_between(page: Page, exchange: Exchange) -> Page:
    """An empty page comes before each page, with a cursor that goes on."""
    return _detour(page, exchange, {**page, _listed(exchange): []})


@_fault(Harm.UNSEEN, _page)
def empty_list(page: Page, exchange: Exchange) -> Page:
    """It says that there is nothing at all."""
    return _with_cursor({**page, _listed(exchange): []}, "")


@_fault({"anthropic": Harm.UNSEEN, "john": Harm.UNSEEN}, _page)
def ends_early(page: Page, _: Exchange) -> Page:
    """Its first page says that no other follows."""
    return _with_cursor(page, "")


@_fault(Harm.UNSEEN, _page)
def rows_twice(page: Page, exchange: Exchange) -> Page:
    """It gives each row twice."""
    name = _listed(exchange)
    return {**page, name: [row for row in page[name] for _ in range(2)]}


@_fault(Harm.UNSEEN, _page)
def out_of_order(page: Page, exchange: Exchange) -> Page:
    """It gives its rows in no order."""
    name = _listed(exchange)
    return {**page, name: exchange.dice.sample(page[name], len(page[name]))}


@_fault(Harm.UNREAD, _page)
def cursor_repeats(page: Page, _: Exchange) -> Page:
    """Its cursor leads to the same page for ever."""
    return _with_cursor(page, _MARK)


@_fault(Harm.UNREAD, _page)
def cursor_loops(page: Page, exchange: Exchange) -> Page:
    """Its cursors lead round in a circle of two."""
    return _with_cursor(page, _MARK * (2 if exchange.cursor == _MARK else 1))


@_fault(Harm.UNREAD)
async def cursor_lost(exchange: Exchange) -> None:
    """It does not know its own cursor any more."""
    if exchange.cursor:
        await exchange.answer(Answer(b'{"error": {"code": "bad_request", "message": "invalid cursor"}}', 400))
    else:
        await _page(cursor_repeats)(exchange)


# --- Rows that cannot be believed, beside good ones.


def _added(make: Callable[[Row, Names], Any]) -> Act:
    """Add one bad row, made of a good one under another name."""

    def change(page: Page, exchange: Exchange) -> Page:
        names = _NAMES[exchange.path]
        if rows := _rows(page, names):
            rows.append(make({**rows[0], names.key: "made-up"}, names))
        return page

    return _page(change)


def _counted(make: Callable[[Row, Names], Any]) -> Act:
    """The same, where rows count something that cannot be less than nothing."""
    add, leave = _added(make), _page(lambda page, _: page)

    async def act(exchange: Exchange) -> None:
        names = _NAMES.get(exchange.path)
        await (add if names and names.count else leave)(exchange)

    return act


def _dated(make: Callable[[Row, str], Row]) -> Act:
    """The same, where rows have a time; a report's buckets have one for all of theirs."""

    def change(page: Page, exchange: Exchange) -> Page:
        names = _NAMES[exchange.path]
        if names.rows == "results":
            page["data"].append(make(page["data"][-1], "starting_at"))
        elif names.time and (rows := _rows(page, names)):
            rows.append(make({**rows[0], names.key: "made-up"}, names.time))
        return page

    return _page(change)


@_fault(Harm.SET_ASIDE, _added)
def null_row(_row: Row, _: Names) -> None:
    """One of its rows is null."""
    return


@_fault(Harm.SET_ASIDE, _added)
def no_row(_row: Row, _: Names) -> str:
    """One of its rows is a text."""
    return "row"


@_fault(Harm.SET_ASIDE, _added)
def missing_field(row: Row, names: Names) -> Row:
    """A row lacks its amount."""
    return {name: value for name, value in row.items() if name != names.amount}


@_fault(Harm.SET_ASIDE, _added)
def null_field(row: Row, names: Names) -> Row:
    """A row's amount is null."""
    return {**row, names.amount: None}


@_fault(Harm.SET_ASIDE, _added)
def wrong_type(row: Row, names: Names) -> Row:
    """A row's amount is true."""
    return {**row, names.amount: True}


@_fault(Harm.SET_ASIDE, _added)
def object_as_amount(row: Row, names: Names) -> Row:
    """A row's amount is an object."""
    return {**row, names.amount: {"value": "1.00"}}


@_fault(Harm.SET_ASIDE, _added)
def field_twice(row: Row, names: Names) -> Row:
    """A row names its amount twice, each time another."""
    return {**row, f"{names.amount}{_AGAIN}": "1.00"}


@_fault(Harm.SET_ASIDE, _added)
def not_a_number(row: Row, names: Names) -> Row:
    """A row's amount is NaN, which JSON does not have and many parsers take."""
    return {**row, names.amount: float("nan")}


@_fault(Harm.SET_ASIDE, _added)
def infinite(row: Row, names: Names) -> Row:
    """A row's amount is minus infinity."""
    return {**row, names.amount: float("-inf")}


@_fault(Harm.SET_ASIDE, _added)
def huge_float(row: Row, names: Names) -> Row:
    """A row's amount is 1e308."""
    return {**row, names.amount: 1e308}


@_fault(Harm.SET_ASIDE, _added)
def past_64_bits(row: Row, names: Names) -> Row:
    """A row's amount is 2 to the power of 63."""
    return {**row, names.amount: 2**63}


@_fault(Harm.SET_ASIDE, _added)
def finer_than_money(row: Row, names: Names) -> Row:
    """A row's amount has a digit far behind the last that money has."""
    return {**row, names.amount: "0.1234567890123456789"}


@_fault({"kalshi": Harm.SET_ASIDE, "anthropic": Harm.SET_ASIDE}, _counted)
def negative_count(row: Row, names: Names) -> Row:
    """A row counts less than nothing."""
    return {**row, str(names.count): "-1.00"}


_DATED = {"kalshi": Harm.SET_ASIDE, "john": Harm.SET_ASIDE, "anthropic": Harm.UNREAD}


@_fault(_DATED, _dated)
def year_9999(row: Row, time: str) -> Row:
    """A row is of the last second that a clock can show."""
    return {**row, time: "9999-12-31T23:59:59Z"}


@_fault(_DATED, _dated)
def leap_second(row: Row, time: str) -> Row:
    """A row is of the second after 23:59:59."""
    return {**row, time: "2026-06-30T23:59:60Z"}


@_fault(_DATED, _dated)
def no_such_day(row: Row, time: str) -> Row:
    """A row is of the 31st of February."""
    return {**row, time: "2026-02-31T12:00:00Z"}


# --- Good rows that say something else for a while.


def _retold(tell: Callable[[Row, Names], Row]) -> Act:
    """Change the newest row, which is asked for again at every poll."""

    def change(page: Page, exchange: Exchange) -> Page:
        names = _NAMES[exchange.path]
        if _holds_newest(page, exchange) and (rows := _rows(page, names)):
            newest = max(range(len(rows)), key=lambda at: rows[at].get(names.time, ""))
            rows[newest] = tell(rows[newest], names)
        return page

    return _page(change)


def _holds_newest(page: Page, exchange: Exchange) -> bool:
    if exchange.source == "kalshi":  # newest first, and the archive holds the oldest
        return not exchange.cursor and "/historical/" not in exchange.path
    return not (page.get("has_more") or page.get("next_cursor"))


@_fault(Harm.BELIEVED, _retold)
def changed_money(row: Row, names: Names) -> Row:
    """It gives a row that is known again, with other money under the same name."""
    if names.rows not in {"fills", "results", "data"}:
        return row
    return {**row, names.amount: str(Decimal(row[names.amount]) + 1)}


@_fault({"anthropic": Harm.BELIEVED, "john": Harm.BELIEVED}, _retold)
def negative_money(row: Row, names: Names) -> Row:
    """An amount that may be negative, such as a credit, is."""
    return row if names.count else {**row, names.amount: f"-{row[names.amount]}"}


def _moved(row: Row, names: Names, by: timedelta) -> Row:
    if names.time is None:
        return row
    return {**row, names.time: (datetime.fromisoformat(row[names.time]) + by).isoformat()}


@_fault({"kalshi": Harm.UNSEEN, "john": Harm.UNSEEN}, _retold)
def clock_ahead(row: Row, names: Names) -> Row:
    """Its clock runs five minutes ahead."""
    return _moved(row, names, AHEAD)


@_fault({"kalshi": Harm.UNSEEN, "john": Harm.UNSEEN}, _retold)
def clock_back(row: Row, names: Names) -> Row:
    """Its clock jumps two hours back."""
    return _moved(row, names, BACK)


def _titled(titles: Callable[[], tuple[str, ...]]) -> Act:
    """Change the texts of good rows, which no number depends on."""

    def change(page: Page, exchange: Exchange) -> Page:
        names = _NAMES[exchange.path]
        for row in _rows(page, names) if names.text else ():
            row[names.text] = exchange.dice.choice(titles())
        return page

    return _page(change)


@_fault(Harm.UNSEEN, _titled)
def script_in_titles() -> tuple[str, ...]:
    """Its titles are scripts, formulas and 300 letters long."""
    return HOSTILE


@_fault(Harm.UNSEEN, _titled)
def odd_unicode() -> tuple[str, ...]:
    """Its titles hold half characters, zeros, invisible marks, and a hundred thousand letters."""
    return "half \ud83d", "zero \x00 byte", "\u200b\u2066\ufeff\u202e", "", "long" * 25_000
