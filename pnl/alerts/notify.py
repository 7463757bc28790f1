"""Sends news to where a person hears of it, through Apprise, an optional extra; its addresses are secrets."""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from importlib import import_module
from importlib.util import find_spec
from threading import Thread
from typing import Any

from pydantic import SecretStr

from pnl.alerts.said import News
from pnl.records import money

DEADLINE_S = 30.0
# The network that is down may be the one that a message goes through.
AGAIN_S = (30.0, 120.0, 600.0)
TALKATIVE = ("apprise", "urllib3")
LONGEST_TICKER = 60

log = logging.getLogger(__name__)


def message(news: News, *, is_simulated: bool = False) -> tuple[str, str]:
    """The title and the text of a piece of news; names of markets come from outside: only plain letters are kept."""
    what = "resolved" if news.is_resolved else "alert"
    heading = f"{'SIMULATED ' if is_simulated else ''}pnl {what}: {news.alert.title}"
    lost = [] if news.is_resolved else [f"{_plain(ticker)} {money(usd)}" for ticker, usd in news.alert.largest]
    return heading, "\n".join([news.text, *(["Largest losses today:"] if lost else []), *lost])


def _plain(ticker: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "?", ticker)[:LONGEST_TICKER]


class Notifier:
    """Sends messages to every target, each in its order, in threads of their own.

    Args:
        targets: Addresses as Apprise knows them.
        deadline_s: Seconds for one attempt at one target.
        again_s: Pauses before further attempts, in seconds.
    """

    def __init__(
        self, targets: Sequence[SecretStr], *, deadline_s: float = DEADLINE_S, again_s: Sequence[float] = AGAIN_S
    ) -> None:
        self.targets = targets
        self._deadline_s = deadline_s
        self._again_s = again_s
        self._turns = [asyncio.Lock() for _ in targets]
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, title: str, text: str) -> None:
        """Begin to send a message; what fails is logged by the number of its target."""
        for number in range(len(self.targets)):
            task = asyncio.create_task(self._send(number, title, text), name=f"notify-{number + 1}")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def sent(self) -> None:
        """Wait until nothing is on its way any more."""
        await asyncio.gather(*self._sending)

    async def aclose(self) -> None:
        """Give up what is on its way."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _send(self, number: int, title: str, text: str) -> None:
        async with self._turns[number]:
            for pause_s in (*self._again_s, None):
                trouble = await self._attempt(self.targets[number], title, text)
                if trouble is None:
                    return
                then = "it is given up" if pause_s is None else f"again in {pause_s:g} s"
                log.warning("%s could not be told of an alert (%s); %s", _which(number), trouble, then)
                await asyncio.sleep(pause_s or 0)

    async def _attempt(self, target: SecretStr, title: str, text: str) -> str | None:
        """Why a message did not go out; None: it did. What Apprise raises may show the address, so it is not said."""
        done = _in_thread(lambda: _deliver(target, title, text))
        try:
            is_sent = await asyncio.wait_for(asyncio.wrap_future(done), self._deadline_s)
        except TimeoutError:
            return f"no answer for {self._deadline_s:g} s"
        except Exception as error:  # noqa: BLE001 - whatever one of a hundred services raises
            return type(error).__name__
        return None if is_sent else "refused, or not reached"


def troubles(targets: Sequence[SecretStr]) -> list[str]:
    """What keeps notifications from being sent, in words and without an address; reads a hundred modules for it."""
    if not targets:
        return []
    if not _is_installed():
        return ["PNL_NOTIFY_URLS is set, but nothing can be sent: pip install 'pnl[notify]' (it brings apprise)"]
    return [
        f"PNL_NOTIFY_URLS: {_which(number)} is no address that Apprise understands"
        for number, target in enumerate(targets)
        if not len(_sender(target))
    ]


def _is_installed() -> bool:
    try:
        return find_spec("apprise") is not None
    except ValueError:  # it is there, and not to be imported
        return False


def _which(number: int) -> str:
    return f"target {number + 1}"


def _sender(target: SecretStr) -> Any:
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they tell whole addresses at lower levels
    apprise = import_module("apprise")  # only here: it takes a second and 20 MB
    # With a timeout of its own it would use a pool of threads, for which the end of the process waits.
    asset = apprise.AppriseAsset(app_id="pnl", async_mode=False, http_redirects=False, service_timeout=0)
    sender = apprise.Apprise(asset=asset)
    sender.add(target.get_secret_value())
    return sender


def _deliver(target: SecretStr, title: str, text: str) -> bool:
    return bool(_sender(target).notify(title=title, body=text, body_format="text"))


def _in_thread[T](work: Callable[[], T]) -> Future[T]:
    """Do something in a thread that nobody waits for at the end of the process, as for those of a pool."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # from here on it cannot be cancelled under the thread's hands

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - who waits hears of it
            done.set_exception(error)

    Thread(target=run, name="notify", daemon=True).start()
    return done
