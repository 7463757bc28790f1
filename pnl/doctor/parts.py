"""What is installed beside the program itself, and can be left out."""

import shutil
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

from pnl.alerts.notify import troubles
from pnl.config import Settings
from pnl.doctor.findings import Finding, Mark

MODULES = {
    "apprise": "alerts reach you by mail, Slack and a hundred others",
    "jupyterlab": "the notebooks can be opened",
    "redis": "processes can share a cache (`PNL_CACHE_URL`)",
    "playwright": "`pnl bench pixel` and the tests in a browser can run",
}

Part = partial(Finding, "Optional parts")


def parts_found(settings: Settings) -> Iterator[Finding]:
    """What each part is good for, and whether it is there; and whether alerts can be sent where they should."""
    for name, good_for in MODULES.items():
        yield _part(name, good_for, is_there=find_spec(name) is not None, how=f"pip install {name}")
    yield from _notifications(settings)
    chromium = shutil.which("chromium") is not None
    yield _part("chromium", "`pnl bench pixel` and the tests in a browser can run", is_there=chromium, how="apt")


def _notifications(settings: Settings) -> Iterator[Finding]:
    wrong = troubles(settings.notify_targets)
    for trouble in wrong:
        yield Part("notifications", trouble, Mark.FAILED)
    if settings.notify_targets and not wrong:
        yield Part("notifications", f"alerts go to {len(settings.notify_targets)} target(s)")


def _part(name: str, good_for: str, *, is_there: bool, how: str) -> Finding:
    if is_there:
        return Part(name, f"there: {good_for}")
    return Part(name, f"not installed; with it {good_for}", Mark.SKIPPED, how)
