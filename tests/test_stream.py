"""What reaches a page: a real Bokeh server, real websockets, and readers that do what BokehJS does."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, timedelta
from decimal import Decimal

import pytest
from aiohttp import ClientSession
from bokeh.protocol import Protocol
from bokeh.protocol.receiver import Receiver
from bokeh.server.server import Server
from test_texts import NOW, SOURCES, snapshot_at
from tornado.ioloop import IOLoop

from pnl.bench.page import TOKEN, Page
from pnl.bench.websocket import frames
from pnl.model import PnLModel
from pnl.records import Fill, Reading, State
from pnl.stream import Hub
from pnl.stream.present import LINE_POINTS, Patch
from pnl.stream.wire import SHORT, Encoder, connections_of, is_free, session_of

LONG_MS = 3_600_000


class Dashboard:
    """A hub, the model that it follows, and a server whose sessions follow it."""

    def __init__(self, **hub):
        self.model = PnLModel()
        self.hub = Hub(self.model, UTC, SOURCES, **hub)
        self.records = []

    def build(self, document):
        live = self.hub.live()
        for source in live.sources:
            document.add_root(source)
        document.on_session_destroyed(lambda _context: self.hub.leave(document))
        self.hub.join(document, live, lambda: self.records.append(document))

    def show(self, seconds, **changes):
        self.model.show(snapshot_at(seconds, **changes))

    @property
    def sessions(self):
        return [session_of(document) for document in self.hub._pages]


@asynccontextmanager
async def served(*, websocket_compression_level=None, **hub):
    """A dashboard on loopback that knows a first snapshot, and a function that opens pages of it."""
    dashboard = Dashboard(**{"flush_ms": 0} | hub)
    dashboard.show(0)
    server = Server({"/app": dashboard.build}, port=0, address="127.0.0.1", io_loop=IOLoop.current(),
                    allow_websocket_origin=["*"],
                    websocket_compression_level=websocket_compression_level)  # fmt: skip
    server.start()
    dashboard.address = f"http://127.0.0.1:{server.port}/app"
    opened = []
    async with ClientSession() as client:

        async def visit(kind=Page):
            page = kind(dashboard.address)
            assert await page.open(client) is None
            opened.append(page)
            return page

        dashboard.visit = visit
        try:
            yield dashboard
        finally:
            for page in opened:
                page.close()
            server.stop()


async def until(is_so):
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


def net_of(page):
    return [point.net for point in page.line]


def has_all(page, dashboard):
    """Whether a page shows the present, to the last point."""
    line = dashboard.hub.present.line
    return page.fields == dashboard.hub.fields() and [(p.t, p.t0) for p in page.line] == list(
        zip(line.t, line.t0, strict=True)
    )


async def test_every_page_gets_the_same_bytes_with_only_what_changed():
    """Encoded once, however many there are."""
    async with served() as dashboard:
        pages = [await dashboard.visit() for _ in range(3)]
        dashboard.show(1)
        await until(lambda: all(has_all(page, dashboard) for page in pages))
        before = [page.received_bytes for page in pages]

        dashboard.show(2, kalshi_unrealized=Decimal("9.20"))

        await until(lambda: all(page.fields["net"] == "-$3.20" for page in pages))
        await until(lambda: all(has_all(page, dashboard) for page in pages))
        [received] = {page.received_bytes - already for page, already in zip(pages, before, strict=True)}
        assert 0 < received <= 600
        assert net_of(pages[0]) == [-4.2, -4.2, -3.2]


async def test_a_fill_sends_the_amounts_of_its_day_and_not_all_days():
    """However many there are."""
    async with served() as dashboard:
        for number in range(400):
            dashboard.model.ledger.add([fill_at(number)])
        dashboard.hub.publish_records()
        page = await dashboard.visit()
        dashboard.show(1)
        await until(lambda: has_all(page, dashboard))
        before = page.received_bytes

        dashboard.model.ledger.add([fill_at(0, name="another")])
        dashboard.hub.publish_records()
        dashboard.show(2)

        await until(lambda: has_all(page, dashboard))
        assert 0 < page.received_bytes - before < 1200
        await page.pull()
        assert len(dashboard.hub.present.days["day"]) == 400


def fill_at(days_ago, name="fill"):
    at = NOW - timedelta(days=days_ago)
    return Fill(f"{name} {days_ago}", "KXA-1-1", "yes", Decimal(1), Decimal("0.3"), Decimal("0.01"), is_taker=True,
                filled_at=at)  # fmt: skip


async def test_nothing_is_sent_when_nothing_changed():
    """Not a byte."""
    async with served() as dashboard:
        page = await dashboard.visit()
        dashboard.show(1)
        await until(lambda: has_all(page, dashboard))
        before = page.received_bytes

        dashboard.hub.flush()
        dashboard.hub.publish_records()
        dashboard.show(2)

        await until(lambda: has_all(page, dashboard))
        once = page.received_bytes - before
        dashboard.show(3)
        await until(lambda: has_all(page, dashboard))
        assert abs(page.received_bytes - before - 2 * once) < 10  # a message's number may have one digit more


async def test_what_was_published_while_a_page_was_loading_is_there_once():
    """Its document is of the moment in which it was asked for."""
    async with served() as dashboard:
        async with ClientSession() as client, client.get(dashboard.address) as answer:
            await answer.read()  # a document is made, and nobody opens it
        dashboard.show(1, total_revenue=Decimal(100))
        page = await dashboard.visit()
        dashboard.show(2, total_revenue=Decimal(101))

        await until(lambda: has_all(page, dashboard))

        assert net_of(page) == [-4.2, 95.8, 96.8]


async def test_a_page_that_is_back_after_a_break_misses_nothing_and_has_nothing_twice():
    """It comes back to the same session."""
    async with served() as dashboard:
        page = await dashboard.visit()
        dashboard.show(1)
        await until(lambda: has_all(page, dashboard))
        page.close()
        dashboard.show(2, total_revenue=Decimal(100))

        await page.reopen()
        dashboard.show(3, total_revenue=Decimal(101))

        await until(lambda: has_all(page, dashboard))
        assert net_of(page) == [-4.2, -4.2, 95.8, 96.8]


async def test_a_document_that_is_asked_for_again_is_of_the_present():
    """No session keeps the columns; whoever else listens to it goes on."""
    async with served() as dashboard:
        page = await dashboard.visit()
        dashboard.show(1, total_revenue=Decimal(100))
        await until(lambda: has_all(page, dashboard))

        await page.pull()

        assert has_all(page, dashboard)
        dashboard.show(2, total_revenue=Decimal(101))
        await until(lambda: has_all(page, dashboard))


async def test_a_session_that_another_thread_works_on_is_brought_to_the_present_behind_it():
    """Its document is locked meanwhile, and what it sends would get between ours."""
    async with served() as dashboard:
        page, other = await dashboard.visit(), await dashboard.visit()
        dashboard.show(1)
        await until(lambda: has_all(page, dashboard))
        release = asyncio.Event()
        locked = asyncio.create_task(dashboard.sessions[0].with_document_locked(release.wait))
        await until(dashboard.sessions[0]._lock.locked)

        dashboard.show(2, total_revenue=Decimal(100))
        dashboard.show(3, total_revenue=Decimal(200))
        await until(lambda: has_all(other, dashboard))
        assert not has_all(page, dashboard)
        release.set()
        await locked

        await until(lambda: has_all(page, dashboard))
        assert net_of(page) == [-4.2, -4.2, 95.8, 195.8]


async def test_a_page_that_does_not_read_delays_nobody_and_fills_no_memory():
    """What waits for it is one message; once it reads, it gets the present instead of all that was."""
    async with served() as dashboard:
        page, slow = await dashboard.visit(), await dashboard.visit()
        dashboard.show(1)
        await until(lambda: has_all(page, dashboard) and has_all(slow, dashboard))
        slow._socket._transport.pause_reading()
        session = dashboard.sessions[1]
        seconds = 1
        while all(map(is_free, connections_of(session))):
            seconds += 1
            dashboard.show(seconds, notes=("long " * 50_000 + str(seconds),))
            await asyncio.sleep(0)
        [listener] = connections_of(session)
        waiting = len(listener._socket.ws_connection.stream._write_buffer)

        for more in range(1, 20):
            dashboard.show(seconds + more, notes=("long " * 50_000 + str(more),))
        await until(lambda: has_all(page, dashboard))
        assert len(listener._socket.ws_connection.stream._write_buffer) == waiting
        slow._socket._transport.resume_reading()

        await until(lambda: has_all(slow, dashboard))
        assert len(slow.line) == seconds + 20


async def test_changes_that_come_quickly_go_out_together_with_every_point():
    """The first at once; the newest text wins."""
    async with served(flush_ms=LONG_MS, flush_changes=4) as dashboard:
        page = await dashboard.visit()
        for second in (1, 2, 3):
            dashboard.show(second, total_revenue=Decimal(second))
        assert dashboard.hub.fields()["net"] == "-$4.20"

        dashboard.show(4, total_revenue=Decimal(4))

        await until(lambda: page.fields["net"] == "-$0.20")
        assert [round(net, 2) for net in net_of(page)] == [-4.2, -3.2, -2.2, -1.2, -0.2]
        assert len({point.t0 for point in page.line}) == 2


async def test_what_waits_goes_out_by_itself():
    """Even if nothing comes after it."""
    async with served(flush_ms=50) as dashboard:
        page = await dashboard.visit()

        dashboard.show(1, total_revenue=Decimal(1))
        dashboard.show(2, total_revenue=Decimal(2))

        await until(lambda: page.fields["net"] == "-$2.20")
        assert has_all(page, dashboard)


async def test_a_session_that_breaks_is_let_go_and_the_others_follow_on(caplog):
    """One broken page never stops the stream."""
    async with served() as dashboard:
        await dashboard.visit()
        page = await dashboard.visit()
        next(iter(dashboard.hub._pages.values())).live = None

        dashboard.show(1, total_revenue=Decimal(100))

        await until(lambda: has_all(page, dashboard))
        assert dashboard.hub.session_count == 1
        assert "let go" in caplog.text


async def test_a_page_that_is_closed_is_written_to_no_longer():
    """And no longer counted, once its session is cleared away."""
    async with served() as dashboard:
        page = await dashboard.visit()
        assert dashboard.hub.connected_count == 1
        page.close()
        await until(lambda: dashboard.hub.connected_count == 0)
        before = page.received_bytes

        dashboard.show(1, total_revenue=Decimal(100))

        assert page.received_bytes == before
        [document] = dashboard.hub._pages
        dashboard.hub.leave(document)
        assert dashboard.hub.session_count == 0


async def test_a_socket_that_compresses_is_written_to_by_bokeh_itself():
    """Past Tornado there is no compressing; the message is the same."""
    async with served(websocket_compression_level=6) as dashboard, ClientSession() as client:
        async with client.get(dashboard.address) as answer:
            token = TOKEN.search(await answer.text())[1]
        at = f"{dashboard.address.replace('http', 'ws', 1)}/ws"
        async with client.ws_connect(at, protocols=("bokeh", token), compress=15) as socket:
            assert socket.compress
            await received(socket, "ACK")
            for part in ({"msgid": "1", "msgtype": "PULL-DOC-REQ"}, {}, {}):
                await socket.send_json(part)
            await received(socket, "PULL-DOC-REPLY")

            dashboard.show(1, total_revenue=Decimal(100))

            patched = await received(socket, "PATCH-DOC")
            assert [event["kind"] for event in patched["events"]] == ["ColumnsPatched", "ColumnsStreamed"]


async def received(socket, kind):
    """The content of the next message, which is of a kind."""
    receiver = Receiver(Protocol())
    while (message := await receiver.consume((await socket.receive()).data)) is None:
        pass
    assert message.msgtype == kind
    return message.content


@pytest.mark.parametrize("length", [1, SHORT, 1 << 16])
def test_a_letter_is_three_whole_frames_whatever_its_length(length):
    """As a websocket's client takes them apart."""
    letter = Encoder().encode(Patch(texts=((0, "x" * length),)))

    found, size = frames(letter.frames)

    assert size == len(letter.frames)
    assert [payload.decode() for _, payload in found] == [
        letter.message.header_json, letter.message.metadata_json, letter.message.content_json
    ]  # fmt: skip


async def test_what_was_recorded_before_the_start_stands_before_what_is_live():
    """A page that is open already gets the longer line."""
    async with served() as dashboard:
        page = await dashboard.visit()
        dashboard.show(1)
        await until(lambda: has_all(page, dashboard))
        first_ms = int(NOW.timestamp() * 1000) - 10_000

        dashboard.hub.recall([(first_ms, 5_000_000), (first_ms + 2000, 6_000_000)])

        await until(lambda: has_all(page, dashboard))
        assert net_of(page) == [5.0, 6.0, -4.2, -4.2]


async def test_a_snapshot_that_still_waits_for_a_source_is_shown_but_is_no_point():
    """A total on its way is no step in the line."""
    async with served() as dashboard:
        page = await dashboard.visit()

        dashboard.show(1, sources=(Reading("kalshi", State.DOWN), *snapshot_at().sources[1:]))

        await until(lambda: page.fields["kalshi.state"] == "waiting")
        assert page.fields["state"] == "partial"
        assert net_of(page) == [-4.2]


async def test_that_a_snapshot_is_on_disk_by_now_is_said_and_is_no_second_point():
    """What is read of the records is read anew: until then it lacked the newest."""
    async with served() as dashboard:
        page = await dashboard.visit()
        dashboard.show(1, is_recorded=False)
        await until(lambda: page.fields["warning"].startswith("Not recorded"))
        dashboard.records.clear()

        dashboard.model.was_recorded(dashboard.model.snapshot.sequence - 1)
        dashboard.model.was_recorded(dashboard.model.snapshot.sequence)

        await until(lambda: page.fields["warning"] == "")
        assert net_of(page) == [-4.2, -4.2]
        assert len(dashboard.records) == 1


async def test_the_older_of_two_snapshots_never_replaces_the_newer():
    """A commit that took long may end after the next one."""
    async with served() as dashboard:
        dashboard.show(4, total_revenue=Decimal(9))
        dashboard.show(2, total_revenue=Decimal(1))

        assert dashboard.hub.fields()["net"] == "$4.80"


async def test_the_line_is_no_longer_than_a_plot_can_show():
    """In every page."""
    async with served() as dashboard:
        page = await dashboard.visit()
        for second in range(1, LINE_POINTS + 10):
            dashboard.show(second)

        await until(lambda: has_all(page, dashboard))
        assert len(page.line) == LINE_POINTS
