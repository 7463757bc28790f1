"""What a notebook works with: one call opens the demo, a data folder or a recorded account; answers are frames."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from recording import NOON, Bookkeeper, a_business, deal, fill, record, recorded, settlement, writing

from pnl.errors import HistoryError
from pnl.history.figures import Part
from pnl.ledger import Ledger
from pnl.notebook import figures_frame, open_desk, settlements_frame
from pnl.records import Batch, State

HOSTILE = "<img src=x onerror=alert(1)>"
PATIENCE_S = 60


async def test_the_recorded_account_is_exact_in_every_frame(recorded_account):
    """The same total as page and command show, however it is asked for; and fees count once."""
    total, fees = Decimal("-9002.824700"), Decimal("6129.111630")
    async with aclosing(await open_desk(recorded_account)) as desk:
        parts = [await desk.parts(by) for by in ("source", "day", "series", "market")]
        bars = await desk.bars(bucket="1d")
        markets = settlements_frame(await desk.ledger())
        shown = desk.model.net_pnl

    assert shown == total
    assert [(frame.net_usd.sum(), frame.fees_usd.sum()) for frame in parts] == [(total, fees)] * 4
    assert bars.close.iloc[-1] == float(total)
    assert (markets.realized_usd.sum(), markets.fees_usd.sum()) == (total + fees, fees)
    both = markets.dropna(subset=["gap_usd"])
    assert (len(markets), len(both), both.gap_usd.abs().sum()) == (2938, 1246, 0)
    assert (both.fills_realized_usd - both.fills_fees_usd).sum() == Decimal("-2711.734700")
    assert both.row_fees_usd.sum() == both.fills_fees_usd.sum()


async def test_the_demo_polls_on_and_leaves_nothing_behind(tmp_path, monkeypatch):
    """Its numbers are in a folder that goes away with it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    desk = await open_desk()
    async with aclosing(desk), asyncio.timeout(PATIENCE_S):
        first = desk.model.snapshot
        came = asyncio.Event()
        desk.model.param.watch(lambda _event: came.set(), "snapshot")
        await came.wait()

        assert {reading.state for reading in first.sources} == {State.FRESH}
        assert desk.model.snapshot.sequence > first.sequence
        assert desk.checklist().loc["DB insert", "count"] > 0
        assert "commit" in desk.spans().index
        assert list(tmp_path.iterdir())

    assert not list(tmp_path.iterdir())


class Traded:
    """A history to which a trade comes each time that it was asked for the ledger, so many times."""

    def __init__(self, history, store, books, times):
        self._history, self._store, self._books, self._left = history, store, books, times
        self.booked = history.booked

    async def ledger_at(self, moment):
        ledger = await self._history.ledger_at(moment)
        if self._left:
            self._left -= 1
            more = Batch(fills=(fill(f"more{self._left}", "KXC-1-1", "yes", "1", "0.5", NOON, fee="0.01"),))
            await record(self._store, self._books.change(datetime.now(UTC), more))
        return ledger


async def test_what_is_compared_is_of_the_same_trades_while_more_come(folder):
    """The books of a moment before are never held against the sums of a moment after."""
    books = Bookkeeper()
    async with writing(folder) as store:
        await record(store, books.change(NOON, a_business()))
        async with aclosing(await open_desk(folder)) as desk:
            ledger, booked = await replace(desk, history=Traded(desk.history, store, books, times=2)).books()
            with pytest.raises(HistoryError, match="trades come in too fast"):
                await replace(desk, history=Traded(desk.history, store, books, times=-1)).books()

    assert sum(book.fill_count for book in ledger.books.values()) == booked.fills == 4
    assert sum(book.fees_usd for book in ledger.books.values()) == booked.fees_usd


async def test_a_data_folder_is_followed_while_another_process_writes_to_it(folder):
    """What it shows says when it was recorded, and a newer snapshot takes its place."""
    books = Bookkeeper()
    async with writing(folder) as store:
        await record(store, books.change(NOON, a_business()))
        async with aclosing(await open_desk(folder)) as desk, asyncio.timeout(PATIENCE_S):
            first = desk.model.snapshot
            came = asyncio.Event()
            desk.model.param.watch(lambda _event: came.set(), "snapshot")
            await record(store, books.change(datetime.now(UTC), Batch(deals=(deal("d", "7", date(2026, 11, 21)),))))
            await came.wait()

            assert first.notes == ("As it was recorded at 2026-11-20 12:00:00 EST.",)
            assert first.total_revenue == 100
            assert desk.model.snapshot.total_revenue == 107


async def test_the_parts_of_a_data_folder_sum_to_its_whole(folder):
    """A part whose name is taken keeps its own row, and a fraction of a micro-dollar is kept."""
    await recorded(folder, Bookkeeper().change(NOON, a_business()))
    async with aclosing(await open_desk(folder)) as desk:
        booked = figures_frame([("all", await desk.history.booked())])
        frames = {by: await desk.parts(by) for by in ("day", "series", "deal", "hour")}
        table = await desk.sql("SELECT fill_id, fee_micros FROM kalshi_trades ORDER BY 1")
        under = await desk.underwater()
        with pytest.warns(UserWarning, match="only the first 1 rows"):
            await desk.sql("SELECT * FROM kalshi_trades", rows=1)

    assert booked.loc["all", "net_usd"] == Decimal("104.6099995")
    assert {by: frame.net_usd.sum() for by, frame in frames.items()} == dict.fromkeys(frames, Decimal("104.6099995"))
    assert [f"{day:%Y-%m-%d}" for day in frames["day"].index] == ["2026-11-19", "2026-11-20"]
    assert list(frames["deal"].index) == ["everything else", "everything else"]
    assert table.to_dict("list") == {"fill_id": ["f0", "f1"], "fee_micros": [70_000, 70_000]}
    assert str(under.index.tz) == "America/New_York"


async def test_the_falls_of_a_data_folder_are_exact_and_open_until_made_good(folder):
    """In the reporting time zone."""
    later = NOON.replace(hour=20)
    books = Bookkeeper()
    changes = [
        books.change(NOON, a_business()),
        books.change(later, Batch(fills=(fill("l", "KXC-1-1", "yes", "1", "0.5", later),))),
    ]
    await recorded(folder, *changes)

    async with aclosing(await open_desk(folder)) as desk:
        falls = await desk.falls("2026-11-20")

    assert falls.depth_usd[0] == Decimal("0.07")
    assert f"{falls.low_at[0]:%H:%M %Z}" == "15:00 EST"
    assert falls.recovered_at.isna().all()


async def test_a_folder_in_which_nothing_is_recorded_is_said(folder):
    """Not taken for an account of zero."""
    with pytest.raises(HistoryError, match="nothing is recorded"):
        await open_desk(folder)


def test_an_empty_ledger_is_a_frame_with_its_columns():
    """So that a notebook of a new account runs to its end."""
    frame = settlements_frame(Ledger())

    assert frame.realized_usd.sum() == 0
    assert "gap_usd" in frame.columns


def test_figures_that_make_no_sense_are_no_numbers():
    """A win rate of nothing is not zero."""
    frame = figures_frame([("none", Part(name=None, components={}))])

    assert frame[["win_rate", "break_even_win_rate", "cost_per_fill_usd"]].isna().all(axis=None)


def test_a_name_from_outside_stays_text_in_a_cell():
    """A notebook shows frames as HTML."""
    ledger = Ledger()
    ledger.add([fill("f", HOSTILE, "yes", "1", "0.5", NOON)], [settlement(HOSTILE, NOON)])

    html = (
        settlements_frame(ledger)._repr_html_()
        + figures_frame([(HOSTILE, Part(name=None, components={}))])._repr_html_()
    )

    assert "<img" not in html
    assert html.count("&lt;img") == 2
