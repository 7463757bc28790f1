"""What somebody does on the page is done once, and nothing else is."""

import asyncio

import pytest

from pnl.errors import StoreError
from pnl.views.deeds import do, in_thread


def told():
    """Give somebody who does things, and what was done."""
    done = []
    return {"sync": lambda to, more: done.append((to, more))}, done


def test_a_deed_is_done_to_what_it_names():
    """With what else was said of it."""
    doers, done = told()

    do('{"turn": 1, "name": "sync", "to": "kalshi"}', doers)
    do('{"turn": 2, "name": "sync", "to": "john", "more": "now"}', doers)

    assert done == [("kalshi", ""), ("john", "now")]


@pytest.mark.parametrize(
    "said", ["", "{", "[]", '{"turn": 1}', '{"turn": 1, "name": "format", "to": "disk"}', '{"turn": 1, "name": 7}']
)
def test_what_is_no_deed_is_not_heard(said):
    """Neither what is no JSON, nor one of another shape, nor one that nobody does."""
    doers, done = told()

    do(said, doers)

    assert done == []


@pytest.mark.parametrize("error", [StoreError("the disk is full"), ValueError("no instant"), KeyError("nobody")])
def test_a_deed_that_fails_is_said_in_the_log_and_harms_nothing(error, caplog):
    """The page goes on."""

    def fail(_to, _more):
        raise error

    do('{"turn": 1, "name": "sync"}', {"sync": fail})

    assert "could not be done" in caplog.text


async def test_a_deed_that_waits_for_the_disk_is_done_beside_the_loop(caplog):
    """And fails there without harm."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def write(to, _more):
        loop.call_soon_threadsafe(done.set)
        raise StoreError(f"no room for {to}")

    do('{"turn": 1, "name": "note", "to": "x"}', {"note": in_thread(write)})
    await done.wait()
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    assert "no room for x" in caplog.text
