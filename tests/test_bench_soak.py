"""`pnl bench soak --reconnects`: pages that are cut off and come back have missed nothing, in a real run."""

import pytest

from pnl.bench.kill_dashboard import dashboard
from pnl.bench.load_crowd import Listener, until
from pnl.bench.soak_cuts import FAULTS, cut_pages


@pytest.fixture
async def served(tmp_path):
    """The real dashboard on the demo."""
    async with dashboard(tmp_path / "data", {"PNL_POLL_S": "0.3"}, log=tmp_path / "log") as served:
        yield served


async def test_pages_that_are_cut_off_and_come_back_miss_nothing(served, tmp_path):
    """They are loaded anew, and in the end all show what a fresh page shows."""
    async with cut_pages(served, 4, 10, tmp_path / "log", within_session=0) as cuts:
        assert await until(lambda: len(cuts.back_s) >= 6, patience_s=120)

        figures = await cuts.in_the_end()

    assert {name: figures[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert figures["reconnects"] >= 6
    assert figures["sessions_failed"] == 0
    assert figures["points"] > 0


async def test_a_page_that_missed_a_point_or_a_text_is_found(served, tmp_path):
    """Both by what it got and by what it shows."""
    async with cut_pages(served, 3, 3600, tmp_path / "log") as cuts:
        one, other, _ = cuts._crowd.listeners
        assert await until(lambda: one.newest_ms > cuts._began_ms, patience_s=120)
        _forget_a_point(one)
        other.fields["forgotten"] = "a text that the server no longer has"

        figures = await cuts.in_the_end()

    assert figures["missed_points"] == 1
    assert figures["unlike_server"] == 2
    assert figures["unlike_own_document"] == 0, "its own document has everything"


def _forget_a_point(page: Listener) -> None:
    """As if one had never come."""
    place = page.received.index(page.line.pop())
    del page.received[place], page.received_ms[place]
