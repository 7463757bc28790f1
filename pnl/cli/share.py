"""What `pnl share` does: a link for somebody who is only to look, or the end of all of them."""

import re
from datetime import UTC, datetime, timedelta

from pnl.config import load_settings
from pnl.errors import ConfigError
from pnl.terminal import remark
from pnl.web.access import read_passwords
from pnl.web.share import Shares

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=366)
SPAN = re.compile(r"([1-9]\d{0,5})([mhdw])")


def share(expires: str, *, hides: bool) -> None:
    """Print the path of a new link.

    Raises:
        ConfigError: The time makes no sense, nobody is asked for a password, or amounts should be hidden.
    """
    if hides:
        raise ConfigError(
            "--hide-amounts: a page's server sends every amount, and a browser hides it; for whoever holds a link that "
            "hides nothing. Send a file that has none: pnl report --hide-amounts"
        )
    settings = load_settings()
    if not read_passwords(settings):
        raise ConfigError(
            "there is no password to go around: without PNL_PASSWORD_FILE everybody who reaches the dashboard owns it"
        )
    ends = datetime.now(UTC) + span(expires)
    print(Shares(settings.data_dir).link(ends.timestamp()))
    until = f"{ends.astimezone(settings.zone):%Y-%m-%d %H:%M} ({settings.timezone})"
    remark(f"put it behind the dashboard's address; whoever has it sees the numbers until {until}")


def revoke() -> None:
    """End every link, also of pages that are open.

    Raises:
        ConfigError: The data folder cannot be written.
    """
    Shares(load_settings().data_dir).revoke()
    print("no link is valid any more")


def span(text: str) -> timedelta:
    """How long a text such as `7d` is: minutes, hours, days or weeks.

    Raises:
        ConfigError: It is none, or longer than a year.
    """
    found = SPAN.fullmatch(text.strip().lower())
    length = None if found is None else timedelta(**{UNITS[found[2]]: int(found[1])})
    if length is None or length > LONGEST:
        raise ConfigError(f"--expires {text[:20]}: should be a time such as 30m, 12h, 7d or 4w, at most a year")
    return length
