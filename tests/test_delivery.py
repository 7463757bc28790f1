"""What pages report of the way from an answer to a pixel, and what is made of reports that are none."""

import time

import msgspec
import pytest

from pnl.metrics import CHECKLIST, Metrics
from pnl.records import Trace
from pnl.stream.delivery import REMEMBERED, Deliveries, Report, every_s

NOW_MS = 1_800_000_000_000.0


@pytest.fixture
def metrics():
    return Metrics()


def sent_by(deliveries, t0=NOW_MS):
    """A snapshot's message that was published at an instant, 10 ms after the answer's first byte; when it was sent."""
    now = time.perf_counter()
    trace = Trace(source="kalshi", first_byte=now - 0.010, cached=now - 0.002, encoded=now)
    deliveries.sent(t0, trace)
    return deliveries._sent[t0].at_ms


def counts(metrics):
    return {row.name: 0 if row.spread is None else row.spread.count for row in metrics.checklist.rows()}


def report(**changes):
    return msgspec.json.encode({"t0": NOW_MS, "received": NOW_MS + 3, "painted": NOW_MS + 20} | changes).decode()


def test_a_report_measures_every_step_to_the_pixel(metrics):
    """The total begins with the answer's first byte."""
    deliveries = Deliveries(metrics)
    t0 = time.time() * 1000
    at_ms = sent_by(deliveries, t0)

    deliveries.hear(msgspec.json.encode(Report(t0, at_ms + 3, at_ms + 20)).decode())

    rows = {row.name: row.spread for row in metrics.checklist.rows()}
    assert rows["network"].max_s == pytest.approx(0.003, abs=1e-6)
    assert rows["render"].max_s == pytest.approx(0.017, abs=1e-6)
    assert rows["total"].max_s >= 0.030 - 1e-6  # of ms since the epoch, as floats
    assert rows["broadcast"].max_s >= 0.002 - 1e-6
    assert metrics.registry.get_sample_value("pnl_ws_message_latency_seconds_count") == 1
    assert metrics.registry.get_sample_value("pnl_broadcasts_total", {"type": "snapshot"}) == 1


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{",
        "[1, 2, 3]",
        '{"t0": "x", "received": 1, "painted": 2}',
        report(t0=NOW_MS - 1),  # nothing was sent then
        report(painted=NOW_MS - 5),  # before it was published
        report(painted=NOW_MS + 3_600_000),  # a tab that was hidden
        report(more=1),
        '{"t0": NaN, "received": NaN, "painted": NaN}',
        report()[:-1] + "1e999}",
    ],
)
def test_what_no_page_of_ours_reports_is_not_heard(metrics, said):
    """Anybody who has the page can send anything."""
    deliveries = Deliveries(metrics)
    sent_by(deliveries)
    before = counts(metrics)

    deliveries.hear(said)

    assert counts(metrics) == before


def test_only_so_many_messages_are_remembered(metrics):
    """A page reports within a minute, or not at all."""
    deliveries = Deliveries(metrics)

    for number in range(REMEMBERED + 5):
        sent_by(deliveries, NOW_MS + number)

    assert len(deliveries._sent) == REMEMBERED
    assert NOW_MS + REMEMBERED + 4 in deliveries._sent


def test_the_more_pages_the_less_often_each_reports():
    """All together a few a second."""
    assert every_s(0) == every_s(1) == 2.0
    assert every_s(1000) == 500.0


def test_every_row_of_the_checklist_can_be_measured():
    """The stream's own among them."""
    assert {"broadcast", "network", "render", "total"} <= CHECKLIST.keys()
