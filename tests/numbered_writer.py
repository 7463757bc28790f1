"""Changes with numbers, processes that write them to a store until they are ended, and what its file may hold then.

Run as a program it takes a folder, how many changes to write, and the durability; after each commit that the store
acknowledges it prints the number of changes that are on disk. It imports little, for it is started often.
"""

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from random import Random

from pnl.errors import StoreHeld
from pnl.records import Batch, Fill, Reading, Snapshot, State
from pnl.store import Change, Store

START = datetime(2026, 11, 22, 23, 59, 30, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
STEP_MS = 700
FILLS = 3
LONGEST_S = 60
FACTORS = (1, -2, 3, 5, 7, 11)
NET = 1 - 2 - 3 - 5 - 7 + 11
SNAPSHOTS = (
    "SELECT timestamp, kalshi_realized_micros, kalshi_unrealized_micros, kalshi_fees_micros, billed_costs_micros, "
    "estimated_costs_micros, total_revenue_micros, net_pnl_micros, trade_count FROM pnl_snapshots ORDER BY timestamp"
)
TRADES = "SELECT fill_id, timestamp, ticker, count_centis, fee_micros FROM kalshi_trades ORDER BY timestamp"
CURSOR = "SELECT max(cursors) FROM source_state WHERE origin = 'numbered'"


@cache
def change(number):
    """One poll's news: some fills, how far they were read, and the snapshot that includes them."""
    at = START + timedelta(milliseconds=STEP_MS * number)
    money = [Decimal((number + 1) * factor).scaleb(-6) for factor in FACTORS]
    counts = (FILLS * (number + 1), FILLS, number)
    snapshot = Snapshot(at, *money, *counts, sources=(Reading("numbered", State.FRESH, as_of=at),))
    fills = tuple(_fill(FILLS * number + place) for place in range(FILLS))
    return Change(snapshot, "numbered", Batch(fills=fills, cursors={"read": f"{number:09}"}), at)


def _fill(number):
    price, fee = Decimal(number % 99 + 1).scaleb(-2), Decimal(number).scaleb(-6)
    at = START + timedelta(microseconds=number)
    return Fill(f"fill-{number:x}", f"KX-{number % 40}", "yes", Decimal("2.50"), price, fee, True, at)  # noqa: FBT003


def _snapshot_row(number):
    money = ((number + 1) * factor for factor in (*FACTORS, NET))
    return (START_MS + STEP_MS * number, *money, FILLS * (number + 1))


def _trade_row(number):
    return f"fill-{number:x}", START_MS * 1000 + number, f"KX-{number % 40}", 250, number


def whole_changes(path):
    """How many changes a file holds; fails unless it holds exactly the first so many, each of them whole."""
    with closing(sqlite3.connect(path)) as reader:
        snapshots, trades = reader.execute(SNAPSHOTS).fetchall(), reader.execute(TRADES).fetchall()
        (cursor,) = reader.execute(CURSOR).fetchone()
    count = len(snapshots)
    assert snapshots == [_snapshot_row(number) for number in range(count)]
    assert trades == [_trade_row(number) for number in range(FILLS * count)]
    assert cursor == (f'{{"read": "{count - 1:09}"}}' if count else None)
    return count


async def write(folder, until, synchronous, acknowledged):
    """Write the changes that the folder does not hold yet, a few at a time; say on a descriptor what is on disk."""
    async with Store(folder, kind="simulated", synchronous=synchronous, commit_ms=0) as store:
        number = len(await store.snapshots(limit=1_000_000))
        random = Random(number)  # noqa: S311 - no secret
        while number < until:
            group = range(number, min(number + random.choice((1, 1, 2, 5)), until))
            await asyncio.gather(*(asyncio.wrap_future(store.append(change(each))) for each in group))
            number = group.stop
            os.write(acknowledged, b"%d\n" % number)


def keep_writing(folder, acknowledged):
    """Write until the end comes from outside; what is on disk is said in a file, for processes made by a fork."""
    said = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(write(folder, 1_000_000, "FULL", said))


def race(folder, go, told, end):
    """Open the store when told to go, tell whether it is ours, and hold it until the end."""

    async def try_it():
        go.wait(LONGEST_S)
        try:
            async with Store(folder, kind="simulated"):
                told.send((os.getpid(), None))
                end.wait(LONGEST_S)
        except StoreHeld as held:
            told.send((os.getpid(), str(held)))

    asyncio.run(try_it())


def open_once(folder, told):
    """Open the store, which brings the file to this version, and close it."""

    async def open_and_close():
        told.send(None)
        async with Store(folder, kind="simulated"):
            pass

    asyncio.run(open_and_close())


if __name__ == "__main__":
    _, folder, until, synchronous = sys.argv
    asyncio.run(write(Path(folder), int(until), synchronous, sys.stdout.fileno()))
