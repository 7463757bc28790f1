"""News goes out through Apprise to a server that really listens; an address is a secret, and a failure is no loss."""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from inbox import CANARY, listening
from pydantic import SecretStr

from pnl.alerts import Alert, AlertState, News, Notifier
from pnl.alerts.notify import message, troubles
from pnl.config import load_settings
from pnl.errors import ConfigError

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
pytestmark = pytest.mark.filterwarnings(
    "ignore:'imghdr' is deprecated:DeprecationWarning"
)  # apprise's own, of Python's


@pytest.fixture
def everything_logged(caplog):
    """All that any logger on this side says, at the level that says most."""
    caplog.set_level(logging.WARNING, "aiohttp.access")  # the inbox's own
    caplog.set_level(logging.DEBUG)
    return caplog


async def test_a_message_reaches_every_target_in_its_order():
    """One after the other, so that an end is never told before its beginning."""
    async with listening() as (one, first), listening() as (other, second):
        notifier = Notifier([first, second])
        notifier.send("fired", "a loss")
        notifier.send("resolved", "no loss")
        await notifier.sent()

    assert one.titles == other.titles == ["fired", "resolved"]
    assert one.messages[0]["message"] == "a loss"


async def test_a_target_that_refuses_is_tried_again_and_keeps_no_other_waiting(everything_logged):
    """Without its address in the log, whatever the level."""
    async with listening() as (one, first), listening() as (other, second):
        one.answers = [500, 500]
        notifier = Notifier([first, second], again_s=(0, 0))
        notifier.send("fired", "a loss")
        await notifier.sent()

    assert one.titles == ["fired"] * 3
    assert other.titles == ["fired"]
    assert everything_logged.text.count("target 1 could not be told of an alert (refused, or not reached)") == 2
    assert CANARY not in everything_logged.text


async def test_a_target_that_never_answers_is_given_up(everything_logged):
    """After its deadline and the last attempt; so is one where nobody listens."""
    async with listening() as (inbox, address):
        inbox.answers = ["never", "never"]
        notifier = Notifier([address, SecretStr(f"json://127.0.0.1:9/{CANARY}")], deadline_s=0.2, again_s=(0,))
        notifier.send("fired", "a loss")
        await notifier.sent()

    assert "target 1 could not be told of an alert (no answer for 0.2 s); it is given up" in everything_logged.text
    assert "target 2 could not be told of an alert" in everything_logged.text
    assert CANARY not in everything_logged.text


async def test_closing_gives_up_what_is_on_its_way():
    """A server that hangs does not hold up the end."""
    async with listening() as (inbox, address):
        inbox.answers = ["never"]
        notifier = Notifier([address])
        notifier.send("fired", "a loss")
        await inbox.asked.wait()

        await asyncio.wait_for(notifier.aclose(), 60)


HANGS = """
import asyncio, sys
from pydantic import SecretStr
from pnl.alerts import Notifier

async def main():
    notifier = Notifier([SecretStr(sys.argv[1])])
    notifier.send("fired", "a loss")
    await asyncio.to_thread(sys.stdin.readline)
    await notifier.aclose()

asyncio.run(main())
"""


async def test_a_thread_that_hangs_does_not_hold_up_the_end_of_the_process():
    """Although the server would be waited for ten minutes."""
    async with listening() as (inbox, address):
        inbox.answers = ["never"]
        url = address.get_secret_value().replace("rto=1", "rto=600")
        command = (sys.executable, "-W", "ignore", "-c", HANGS, url)
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        await asyncio.wait_for(inbox.asked.wait(), 60)
        process.stdin.write(b"enough\n")

        assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_no_redirect_is_followed():
    """An address that is a secret leads where it says, and nowhere else."""
    async with listening() as (inbox, address):
        inbox.answers = [307]
        notifier = Notifier([address], again_s=())
        notifier.send("fired", "a loss")
        await notifier.sent()

    assert len(inbox.messages) == 1


def test_a_message_says_the_rule_and_the_losses_in_plain_letters():
    """The name of a market comes from outside, and some services read markup."""
    alert = Alert("daily_loss", AlertState.FIRING, NOW, largest=(("KX-1 @everyone\n<b>", Decimal("-4.17")),))

    title, text = message(News(alert, is_resolved=False, text="Daily loss 104 % of $4.00."), is_simulated=True)
    resolved = message(News(alert, is_resolved=True, text="Back."))

    assert title == "SIMULATED pnl alert: Daily loss limit"
    assert text == "Daily loss 104 % of $4.00.\nLargest losses today:\nKX-1??everyone??b? -$4.17"
    assert resolved == ("pnl resolved: Daily loss limit", "Back.")


def test_addresses_that_cannot_work_are_named_by_their_number():
    """Never by themselves."""
    said = troubles([SecretStr("json://127.0.0.1:9/x"), SecretStr(f"nonsense://{CANARY}")])

    assert said == ["PNL_NOTIFY_URLS: target 2 is no address that Apprise understands"]
    assert troubles([]) == []


async def test_without_apprise_the_settings_are_told_to_be_in_vain(monkeypatch):
    """And what would be sent fails by a name."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    target = SecretStr(f"json://127.0.0.1:9/{CANARY}")

    (said,) = troubles([target])
    notifier = Notifier([target], again_s=())
    notifier.send("fired", "a loss")
    await notifier.sent()

    assert "pip install 'pnl[notify]'" in said


def test_the_addresses_are_split_where_the_next_one_begins():
    """A comma may be a part of one."""
    urls = f"json://a/x?to=1,2 ,slack://b/{CANARY}\n mailto://c, "

    targets = load_settings(notify_urls=urls).notify_targets

    assert [target.get_secret_value() for target in targets] == [
        "json://a/x?to=1,2",
        f"slack://b/{CANARY}",
        "mailto://c",
    ]
    assert CANARY not in repr(targets)
    assert load_settings().notify_targets == ()


@pytest.mark.parametrize("urls", [CANARY, f"json://a {CANARY}", ",", "://x"])
def test_what_is_no_address_is_refused_without_being_shown(urls):
    """It may be half of a key."""
    with pytest.raises(ConfigError, match="PNL_NOTIFY_URLS: should be addresses such as json://host/path") as refused:
        load_settings(notify_urls=urls)

    assert CANARY not in str(refused.value)
