"""The ledger as files: every format holds all rows that were asked for, exact, and nothing that a text smuggles in."""

import asyncio
import csv
import json
import re
import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import duckdb
import pytest
import pytest_asyncio
from python_calamine import load_workbook
from recording import KIND, Bookkeeper, cost_day, deal, fill, instant, record, recorded, settlement, writing

from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import HistoryDown, HistoryError
from pnl.history.client import History
from pnl.history.ledger_export import COUNTS, FORMS, MONEY, RUNNING, TEXTS
from pnl.history.ledger_files import harmless
from pnl.history.process import Worker
from pnl.history.wire import Counted, Opening, Question
from pnl.records import Batch, Mark, Result
from pnl.rows import to_instant
from pnl.simulator import RecordedAccount, Simulator
from pnl.simulator.demo import demo_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one history for many files

ZONE = "America/New_York"
START = instant("2026-10-30 23:59:59.000001")
HOSTILE = [
    "=cmd|'/C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "＝1+1",  # noqa: RUF001 - it is meant
    " =HYPERLINK(1)",
    "\u200b=1",
    "\0=1",
    "<script>alert(1)</script>",
    "<r><t>raw</t></r>",
    "<r></si><f>1+1</f></r>",
    'a "quoted", one\nwith a line',
    "\u202eright to left",
    "\uffff\ufffe no XML",
    "{=1}",
    "http://evil.example/",
    "1e5",
    "x" * 10_000,
]
NUMBERS = (*COUNTS, *MONEY, *RUNNING)
IN_UTC = ("TIMESTAMP WITH TIME ZONE",)
COLUMNS = ["at", *TEXTS, *NUMBERS]


def records():
    """Give fills, settlements, costs and deals over both sides of the autumn change, whose texts are hostile."""
    tickers = [f"KX{n % 3}-26NOV-T{n}" for n in range(len(HOSTILE))]
    times = [START + timedelta(hours=7 * n, microseconds=n) for n in range(4 * len(tickers))]
    fills = [
        fill(f"f-{n}", tickers[n % len(tickers)], "yes" if n % 2 else "no", "1.37", f"0.{n + 11}", at, fee=f"0.0{n}7")
        for n, at in enumerate(times)
    ]
    marks = [
        Mark(ticker, Decimal("0.3"), Decimal("0.4"), START, text) for ticker, text in zip(tickers, HOSTILE, strict=True)
    ]
    ended = [settlement(ticker, times[-1] + timedelta(days=1), Result.YES) for ticker in tickers[::2]]
    days = [START.date() + timedelta(days=n) for n in range(5)]
    costs = [cost_day(day, "1.237891234567", "0.000000000001", is_estimate=day == days[-1]) for day in days]
    deals = [deal(text[:50], "12.5", days[0], fee="0.31", origin="csv:/home/me/deals.csv") for text in HOSTILE]
    return Batch(fills=fills, settlements=ended, marks=marks, cost_days=tuple(costs), deals=tuple(deals))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def history(tmp_path_factory):
    """The history of a store with hostile texts in it."""
    change = Bookkeeper().without_snapshot(START + timedelta(days=60), records())
    path = await recorded(tmp_path_factory.mktemp("store") / "data", change)
    async with History(path, kind=KIND, zone=ZONE, deadline_s=120) as history:
        yield history


def read(path):
    """Give the rows of a file by name, numbers as decimals, and what is not there as None."""
    rows = {"csv": from_csv, "json": from_json, "xlsx": from_xlsx, "parquet": from_parquet}[path.suffix[1:]](path)
    for row in rows:
        assert list(row) == COLUMNS
    return [
        {name: Decimal(str(text)) if name in NUMBERS and text is not None else text for name, text in row.items()}
        for row in rows
    ]


def from_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: text or None for name, text in row.items()} for row in csv.DictReader(file)]


def from_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def from_xlsx(path):
    names, *rows, sums = load_workbook(path).get_sheet_by_name("Ledger").to_python()
    assert sums[0] == "Sum"
    rows = [{name: None if cell == "" else cell for name, cell in zip(names, row, strict=True)} for row in rows]
    return [row | {"at": datetime.fromisoformat(f"{row['at']}")} for row in rows]  # midnight comes as a date


def from_parquet(path):
    found = duckdb.sql(f'SELECT * REPLACE (epoch_us("at") AS "at") FROM read_parquet(\'{path}\')')
    assert duckdb.sql(f"SELECT typeof(\"at\") FROM read_parquet('{path}')").fetchone() in {None, IN_UTC}
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    return [row | {"at": to_instant(row["at"])} for row in rows]


TERMS = {
    "net": lambda row: row["net_usd"],
    "trading": lambda row: row["trading_usd"],
    "fees": lambda row: -row["fees_usd"],
    "costs": lambda row: -row["costs_billed_usd"] - row["costs_estimated_usd"],
    "estimated": lambda row: -row["costs_estimated_usd"],
    "revenue": lambda row: row["revenue_usd"],
}
CHOICES = [
    {"term": "net"},
    {"term": "fees"},
    {"term": "costs"},
    {"term": "estimated"},
    {"term": "revenue"},
    {"term": "trading", "filters": [("series", "KX1")]},
    {"filters": [("market", None)]},
    {"filters": [("kind", "settlement"), ("month", "2026-11")]},
    {"filters": [("deal", HOSTILE[0])]},
    {"search": "cmd|"},
    {"search": "nowhere to be found"},
    {"start": instant("2026-11-01"), "end": instant("2026-11-02")},
]


@pytest.mark.parametrize("form", FORMS)
async def test_a_file_sums_to_the_ledger_to_the_last_digit(history, tmp_path, form):
    """Whatever is chosen: as many rows, each the same amounts, oldest first, and the running sum ends at the sum."""
    for chosen in CHOICES[: None if form in ("csv", "parquet") else 2]:
        path = tmp_path / f"ledger.{form}"
        whole = await history.ledger(**chosen, count=10_000, descending=False)

        count = await history.export_ledger(path, **chosen)
        rows = read(path)

        share = TERMS[chosen.get("term", "net")]
        exact = (lambda usd: usd) if form != "xlsx" else (lambda usd: Decimal(str(float(usd))))
        assert count == len(rows) == whole.count
        assert [exact(share(row)) for row in rows] == [exact(row.amount_usd) for row in whole.rows]
        if form != "xlsx":
            assert sum(map(share, rows), Decimal(0)) == whole.amount_usd
            assert [row["running_net_usd"] for row in rows[-1:]] == [whole.figures.net_usd][: len(rows)]
        assert list(tmp_path.iterdir()) == [path]


async def test_all_formats_hold_the_same(history, tmp_path):
    """Instants with the offset that they had there in CSV and JSON, in UTC in Parquet, by the wall clock in Excel."""
    found = {form: tmp_path / f"ledger.{form}" for form in FORMS}
    for path in found.values():
        await history.export_ledger(path)
    rows = {form: read(path) for form, path in found.items()}
    whole = await history.ledger(count=10_000, descending=False)

    for number, row in enumerate(rows["json"]):
        as_csv, as_parquet, as_sheet = (rows[form][number] for form in ("csv", "parquet", "xlsx"))
        at = datetime.fromisoformat(row["at"])
        assert at == whole.rows[number].at == as_parquet["at"]
        assert at.utcoffset() == at.astimezone(ZoneInfo(ZONE)).utcoffset()
        assert abs(as_sheet["at"] - at.replace(tzinfo=None)) < timedelta(milliseconds=1)
        assert row["at"] == as_csv["at"]
        for name in NUMBERS:
            exact = row[name]
            assert exact == as_csv[name] == as_parquet[name]
            assert exact is as_sheet[name] or float(exact) == float(as_sheet[name])
    assert {row["at"][-6:] for row in rows["json"]} == {"-04:00", "-05:00"}


async def test_no_text_is_a_formula_anywhere_and_none_is_lost(history, tmp_path):
    """A quote before it in CSV, a cell of text in a workbook, the very same elsewhere; and no place of this machine."""
    for form in FORMS:
        await history.export_ledger(tmp_path / f"ledger.{form}")
    texts = {form: titles(read(tmp_path / f"ledger.{form}")) for form in FORMS}

    assert texts["json"] == texts["parquet"] >= set(HOSTILE)
    assert {text.removeprefix("'") for text in texts["csv"]} == texts["json"]
    for text in texts["csv"]:
        visible = re.sub(r"^[\s\0\u200b]+", "", text)
        assert visible[0] not in "=+-@＝", text  # noqa: RUF001 - it is meant
        assert text[0] not in "\t\r\n"
    with zipfile.ZipFile(tmp_path / "ledger.xlsx") as book:
        for name in book.namelist():
            assert ET.fromstring(book.read(name)) is not None  # noqa: S314 - written just now
        sheet = book.read("xl/worksheets/sheet2.xml")
    assert not re.search(r"[\ufffe\uffff]", sheet.decode())  # XML has no such letters
    assert b"<f>" not in sheet
    assert b"hyperlink" not in sheet
    for form in ("csv", "json", "parquet"):
        assert b"/home/me" not in (tmp_path / f"ledger.{form}").read_bytes()


def titles(rows):
    return {row["title"] for row in rows if row["market"] is not None}


@pytest.mark.parametrize("text", ["plain", "a=b", "", None, "26NOV", "'=1", "€ -1"])
async def test_a_text_that_harms_nobody_stays_as_it_is(text):
    """Also one with a sign inside."""
    assert harmless(text) == text


async def test_a_workbook_says_what_it_is_about(history, tmp_path):
    """What was asked for, when, where days begin, and by which program; names stay in sight, rows can be filtered."""
    path = tmp_path / "ledger.xlsx"
    filters = [("series", "KX1"), ("item", None)]
    found = await history.ledger(instant("2026-11-01"), filters=filters, search="=cmd")
    await history.export_ledger(path, instant("2026-11-01"), filters=filters, search="=cmd")

    book = load_workbook(path)
    about = dict(book.get_sheet_by_name("About").to_python())
    *_, sums = book.get_sheet_by_name("Ledger").to_python()

    assert about["From"] == "2026-11-01T00:00:00-04:00"
    assert about["Up to"] == "the newest record"
    assert (about["Only series"], about["Only item"], about["Only with the text"]) == ("KX1", "none", "=cmd")
    assert (about["Time zone"], about["Numbers"], about["Rows"]) == (ZONE, "simulated", f"{found.count}")
    assert datetime.fromisoformat(about["As of"]) <= datetime.now(UTC)
    assert about["Program"].startswith("pnl ")
    assert sums[COLUMNS.index("net_usd")] == float(found.amount_usd)
    with zipfile.ZipFile(path) as file:
        sheet = file.read("xl/worksheets/sheet2.xml").decode()
    assert 'state="frozen"' in sheet
    assert f'<autoFilter ref="A1:T{found.count + 1}"/>' in sheet


async def test_a_recorded_account_is_exported_to_its_known_total(tmp_path, recorded_account):
    """A real account through the whole program, in every format."""
    total = Decimal("-9002.824700")
    async with Simulator(RecordedAccount(recorded_account)) as simulator:
        settings = demo_settings(load_settings(data_dir=tmp_path / "data"), simulator)
        async with Engine(settings) as engine:
            await engine.sync()
            for form in FORMS:
                path = tmp_path / f"ledger.{form}"
                await engine.history.export_ledger(path)
                assert sum(row["net_usd"] for row in read(path)).quantize(Decimal("0.000001")) == total
    *_, sums = load_workbook(tmp_path / "ledger.xlsx").get_sheet_by_name("Ledger").to_python()
    assert sums[COLUMNS.index("net_usd")] == float(total)


# --- what goes wrong


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ledger.doc", {}, "there is no format 'doc'; choose one of csv, json, xlsx, parquet"),
        ("nowhere/ledger.csv", {}, "ledger.csv cannot be written: No such file"),
        ("ledger.csv", {"term": "luck"}, "no term 'luck'"),
        ("ledger.csv", {"filters": [("luck", "x")]}, "no breakdown by 'luck'"),
    ],
)
async def test_what_cannot_be_written_is_said_and_leaves_nothing(history, tmp_path, name, options, said):
    """A file that was there stays as it was."""
    (tmp_path / "ledger.csv").write_text("mine")

    with pytest.raises(HistoryError, match=said):
        await history.export_ledger(tmp_path / name, **options)

    assert [path.name for path in tmp_path.iterdir()] == ["ledger.csv"]
    assert (tmp_path / "ledger.csv").read_text() == "mine"


async def until(holds):
    """Wait for something to be so, however short."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)


async def test_who_stops_waiting_leaves_neither_file_nor_process(history, tmp_path):
    """However far it was; and the next one gets its file."""
    writing_ = asyncio.create_task(history.export_ledger(tmp_path / "ledger.xlsx"))
    await until(lambda: history._writer is not None and history._writer.pid is not None)
    pid = history._writer.pid

    writing_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing_

    assert not is_running(pid)
    assert list(tmp_path.iterdir()) == []
    assert await history.export_ledger(tmp_path / "ledger.csv")


async def test_who_leaves_early_stops_nothing_that_pages_need(history, tmp_path):
    """The process that answers them goes on with what it knows: to read all anew would take long."""
    await history.ledger()
    pid = history.pid
    leaving = asyncio.create_task(history.export_ledger(tmp_path / "ledger.csv"))
    await until(history._worker._turn.locked)

    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving

    assert history.pid == pid
    assert await history.export_ledger(tmp_path / "ledger.csv")


async def test_a_history_that_closes_stops_its_files(tmp_path):
    """The one that is being made, and those that wait for their turn."""
    path = await recorded(tmp_path / "data", Bookkeeper().without_snapshot(START, records()))
    history = History(path, kind=KIND, zone=ZONE, deadline_s=60)
    tasks = [asyncio.create_task(history.export_ledger(tmp_path / f"{n}.csv")) for n in range(3)]
    await until(lambda: history._writer is not None and history._writer.pid is not None)

    await history.aclose()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(error) for error in ended} == {HistoryDown}
    assert [each.name for each in tmp_path.iterdir()] == ["data"]


async def test_what_is_recorded_meanwhile_is_in_all_rows_or_in_none(tmp_path):
    """A file is of one instant: its running sum is the sum of its own rows."""
    books = Bookkeeper()
    async with writing(tmp_path / "data") as store:
        await record(store, books.without_snapshot(START, records()))
        async with History(store.path, kind=KIND, zone=ZONE, deadline_s=60) as history:
            more = [fill(f"late-{n}", "KX9-26NOV-T1", "yes", "1", "0.5", START) for n in range(20)]
            tasks = [asyncio.create_task(history.export_ledger(tmp_path / f"{n}.csv")) for n in range(3)]
            for each in more:
                await record(store, books.without_snapshot(START, Batch(fills=(each,))))
            await asyncio.gather(*tasks)

    for n in range(3):
        rows = read(tmp_path / f"{n}.csv")
        assert sum(row["net_usd"] for row in rows) == rows[-1]["running_net_usd"]


@pytest.mark.parametrize(("form", "few", "many"), [("csv", 20_000, 100_000), ("xlsx", 20_000, 45_000)])
async def test_many_rows_need_no_more_memory_than_few(tmp_path, form, few, many):
    """What is written is not kept."""
    peaks = {count: await peak_mb(tmp_path, form, count) for count in (few, many)}

    assert peaks[many] < peaks[few] + 30


async def peak_mb(tmp_path, form, count):
    """How much memory a process had at most that wrote so many rows."""
    source = tmp_path / f"{count}.parquet"
    texts = ", ".join(f"'{name} ' || n AS {name}" for name in TEXTS)
    numbers = ", ".join(f"(n * 0.37)::DECIMAL(38,12) AS {name}" for name in NUMBERS)
    duckdb.sql(
        f'COPY (SELECT make_timestamptz(n * 1000000) AS "at", {texts}, {numbers} FROM range({count}) r(n)) '
        f"TO '{source}' (FORMAT parquet)"
    )
    worker = Worker(Opening("", KIND, ZONE, Counted(), room="files"), deadline_s=800)
    asked = {"source": f"{source}", "path": f"{tmp_path / form}", "form": form, "rows": count, "sums": {}, "about": []}
    try:
        assert (await worker.ask(Question("write_ledger", asked))).error is None
        return highest_mb(worker.pid)
    finally:
        await worker.aclose()


def highest_mb(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def is_running(pid):
    return Path(f"/proc/{pid}").exists()
