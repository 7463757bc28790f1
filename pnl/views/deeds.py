"""What somebody does on the page beside looking: heard from the browser, and done by whoever can."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec
from bokeh.core.properties import String
from bokeh.model import DataModel
from msgspec import Meta

from pnl.errors import PnlError

LONGEST = 500

log = logging.getLogger(__name__)

_under_way: set[asyncio.Task[None]] = set()  # nobody else holds on to them

type Doers = Mapping[str, Callable[[str, str], object]]
"""By the name of a deed, who does it: with what it is done to, and what else is said."""


class Done(DataModel):
    """What somebody did: a `Deed` as JSON, written by the browser."""

    deed = String(default="")


class Deed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One deed, to something; `turn` counts them, so that the same one can be done again."""

    turn: int
    name: Annotated[str, Meta(max_length=40)]
    to: Annotated[str, Meta(max_length=LONGEST)] = ""
    more: Annotated[str, Meta(max_length=100)] = ""


def in_thread(doer: Callable[[str, str], object]) -> Callable[[str, str], None]:
    """Have a deed done beside the loop; what goes wrong is said in the log."""

    def start(to: str, more: str) -> None:
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(_try, doer, to, more))
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)

    return start


def _try(doer: Callable[[str, str], object], to: str, more: str) -> None:
    try:
        doer(to, more)
    except (PnlError, ValueError, LookupError) as error:
        log.warning("what somebody did on the page could not be done: %s", error)


def follow(done: Done, doers: Doers, loop: asyncio.AbstractEventLoop) -> None:
    """From now on, do on this loop what a page says; Bokeh tells of it in another thread."""

    def heard(_name: str, _old: str, said: str) -> None:
        loop.call_soon_threadsafe(do, said, doers)

    done.on_change("deed", heard)


def do(said: str, doers: Doers) -> None:
    """Do what the browser wrote; what is no deed is not from our page, and one that fails is said in the log."""
    try:
        deed = msgspec.json.decode(said, type=Deed)
    except msgspec.DecodeError:
        return
    if deed.name not in doers:
        return
    _try(doers[deed.name], deed.to, deed.more)
