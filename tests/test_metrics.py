"""What is measured is what was: figures by hand and at random, a clock that is told, and Prometheus' own parser."""

import math
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pnl.metrics import CHECKLIST, GAUGES, Checklist, Durations, Metrics, Spans
from pnl.records import Trace

SECONDS = st.floats(min_value=0, max_value=100)
STEPS = ("requested", "first_byte", "body", "parsed", "aggregated", "computed", "committed", "cached")
SEED = {
    "kalshi_fetch": 0.2,
    "anthropic_fetch": 0.1,
    "john_fetch": 0.15,
    "aggregation": 0.05,
    "pnl": 0.03,
    "cache_write": 0.02,
    "db_insert": 0.05,
    "broadcast": 0.1,
    "network": 0.1,
    "render": 0.05,
    "total": 0.5,
}


def row_of(checklist, name):
    return next(row for row in checklist.rows() if row.name == name)


def scraped(metrics, accept=""):
    """Every sample by its name and labels, as Prometheus reads it."""
    text = metrics.scrape(accept)[0].decode()
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


# --- the budget


def test_the_checklist_has_the_targets_of_the_guide_and_tighter_ones_of_our_own():
    """Ten rows and the total; ten times tighter where the work is ours."""
    assert {name: target.target_s for name, target in CHECKLIST.items()} == SEED
    assert all(t.own_s is None or t.own_s == pytest.approx(t.target_s / 10) for t in CHECKLIST.values())
    assert [name for name, target in CHECKLIST.items() if target.own_s is None] == [
        *("kalshi_fetch", "anthropic_fetch", "john_fetch", "network", "render")
    ]


def test_a_row_that_was_not_measured_says_so():
    """Neither zero, nor met, nor a question mark."""
    rows = Checklist().rows()

    assert [row.name for row in rows] == list(SEED)
    assert {row.spread for row in rows} == {None}
    assert {row.verdict for row in rows} == {"not measured yet"}
    assert {row.own_verdict for row in rows} == {"not measured yet", None}


@given(st.lists(SECONDS, min_size=1, max_size=50), st.integers(1, 20))
def test_the_last_durations_are_kept_and_all_of_them_are_counted(durations, kept):
    """The percentiles lie between the smallest and the largest of those that are kept."""
    seen = Durations(kept)
    for seconds in durations:
        seen.add(seconds)

    spread = seen.spread()

    last = durations[-kept:]
    assert spread.count == len(durations)
    assert (spread.min_s, spread.max_s) == (min(last), max(last))
    tolerance = 1e-9
    ordered = [spread.min_s, spread.p50_s, spread.p95_s, spread.p99_s, spread.max_s]
    assert all(low <= high + tolerance for low, high in pairwise(ordered))
    assert spread.min_s - tolerance <= spread.mean_s <= spread.max_s + tolerance


@given(st.sampled_from(sorted(CHECKLIST)), st.integers(0, 100))
@example("pnl", 5)
@example("pnl", 6)
def test_a_target_is_met_while_95_of_100_keep_it(name, late):
    """Of a hundred durations some are twice what they may be, the others half of it."""
    checklist, target = Checklist(), CHECKLIST[name]
    for number in range(100):
        checklist.observe(name, target.target_s * (2 if number < late else 0.5))

    row = row_of(checklist, name)

    assert row.verdict == ("met" if late <= 5 else "missed")
    assert row.own_verdict == (None if target.own_s is None else "missed")
    assert {other.verdict for other in checklist.rows() if other.name != name} == {"not measured yet"}


def test_our_own_target_has_a_verdict_of_its_own():
    """An insert of 4 ms keeps both, one of 20 ms keeps the guide's."""
    checklist = Checklist()

    checklist.observe("db_insert", 0.004)
    assert (row_of(checklist, "db_insert").verdict, row_of(checklist, "db_insert").own_verdict) == ("met", "met")
    checklist.observe("db_insert", 0.04)
    assert (row_of(checklist, "db_insert").verdict, row_of(checklist, "db_insert").own_verdict) == ("met", "missed")


@pytest.mark.parametrize("seconds", [None, -0.001, math.nan, math.inf, -math.inf])
def test_what_is_no_duration_is_left_out(seconds):
    """A browser's clock may say anything."""
    checklist = Checklist()

    checklist.observe("network", seconds)

    assert row_of(checklist, "network").spread is None


def test_a_row_that_does_not_exist_is_a_mistake_of_the_caller():
    """A word that is misspelt must not vanish."""
    with pytest.raises(ValueError, match="'nettwork' is no row of the checklist; there are kalshi_fetch"):
        Checklist().observe("nettwork", 0.1)


# --- the trace


@given(st.lists(SECONDS, min_size=len(STEPS), max_size=len(STEPS)).map(sorted))
def test_the_steps_of_a_trace_leave_no_time_between_them(instants):
    """From the request to the cache, every moment is in one row of the checklist and only in one."""
    trace = Trace(source="kalshi", **dict(zip(STEPS, instants, strict=True)))

    parts = (trace.fetch_s, trace.aggregation_s, trace.computing_s, trace.commit_s, trace.caching_s)

    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(trace.cached - trace.requested)


def test_a_file_is_fetched_when_its_rows_are_read():
    """There is no body that ends before that."""
    trace = Trace(source="john", requested=1.0, parsed=1.5, aggregated=1.75)

    assert (trace.fetch_s, trace.aggregation_s, trace.computing_s) == (0.5, 0.25, None)


def test_a_trace_fills_the_rows_that_it_knows_of():
    """Steps that were not gone through are left out, and a third party's source has no row."""
    metrics = Metrics()

    metrics.traced(Trace(source="john", requested=1.0, first_byte=1.1, body=1.125, parsed=1.13, aggregated=1.25))
    metrics.traced(Trace(source="openai", requested=1.0, body=2.0, parsed=2.0, aggregated=2.5, computed=3.0))
    metrics.traced(Trace(computed=1.0))

    counts = {row.name: row.spread.count for row in metrics.checklist.rows() if row.spread}
    assert counts == {"john_fetch": 1, "aggregation": 2, "pnl": 1}
    assert row_of(metrics.checklist, "john_fetch").spread.p50_s == 0.125
    found = scraped(metrics)
    assert found["pnl_fetch_seconds_sum", ("source", "openai")] == 1.0
    assert (found["pnl_aggregation_latency_seconds_count",], found["pnl_aggregation_latency_seconds_sum",]) == (1, 1)


def test_an_insert_is_one_transaction_and_the_wait_for_it_is_told_apart():
    """Commits are made together: what waits for the next one takes longer to be on disk than the disk takes."""
    metrics = Metrics()

    metrics.committed(0.004)
    metrics.traced(Trace(computed=1.0, committed=1.125, cached=1.25))

    assert row_of(metrics.checklist, "db_insert").spread.max_s == 0.004
    assert row_of(metrics.checklist, "cache_write").spread.max_s == 0.125
    found = scraped(metrics)
    assert (found["pnl_commit_latency_seconds_sum",], found["pnl_record_latency_seconds_sum",]) == (0.004, 0.125)


# --- the profiler


def test_spans_tell_how_long_each_kind_of_work_takes(clock):
    """Count, mean, least, most and p95, also of a block that fails."""
    spans = Spans(clock=clock.timestamp)
    for milliseconds in (100, 200, 300):
        with spans("commit"):
            clock.advance(milliseconds=milliseconds)
    with suppress(KeyError), spans("poll"):
        clock.advance(milliseconds=40)
        raise KeyError

    found = spans.spreads()

    assert list(found) == ["commit", "poll"]
    commit = found["commit"]
    expected = (0.2, 0.1, 0.3, 0.29)
    assert (commit.mean_s, commit.min_s, commit.max_s, commit.p95_s) == pytest.approx(expected, abs=1e-5)
    assert (commit.count, found["poll"].count) == (3, 1)
    assert spans.summary() == (
        "commit 3 times, mean 200.0, min 100.0, p95 290.0, max 300.0 ms; "
        "poll 1 times, mean 40.0, min 40.0, p95 40.0, max 40.0 ms"
    )


def test_a_slow_span_is_logged(clock, caplog):
    """From half a second on, or from what the place itself says."""
    spans = Spans(clock=clock.timestamp)
    for name, milliseconds, options in (
        ("a", 499, {}),
        ("b", 501, {}),
        ("c", 501, {"slow_s": 3}),
        ("d", 11, {"slow_s": 0.01}),
    ):
        with spans(name, **options):
            clock.advance(milliseconds=milliseconds)

    assert caplog.messages == ["slow: b took 501 ms", "slow: d took 11 ms"]


def test_a_summary_of_nothing_is_empty():
    """Nothing is made up."""
    assert Spans().summary() == ""


# --- Prometheus


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_the_five_metrics_of_the_guide_are_there_in_base_units(accept):
    """Seconds and ratios, whichever format is asked for."""
    metrics = Metrics()
    metrics.watch("pnl_connected_clients", lambda: {(): 3})
    metrics.watch("pnl_cache_hit_ratio", lambda: {("current", "memory"): 0.75, ("current", "disk"): None})
    metrics.traced(Trace(source="kalshi", body=1.0, parsed=1.0, aggregated=1.5, computed=1.75))
    metrics.delivered(0.02)
    metrics.broadcast("delta")
    metrics.broadcast("delta")

    text, content_type = metrics.scrape(accept)

    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain; version=0.0.4")
    assert text.endswith(b"# EOF\n") is bool(accept)
    found = scraped(metrics)
    assert found["pnl_aggregation_latency_seconds_sum",] == 0.75
    assert found["pnl_ws_message_latency_seconds_bucket", ("le", "0.025")] == 1
    assert found["pnl_connected_clients",] == 3
    assert found["pnl_cache_hit_ratio", ("cache", "current"), ("level", "memory")] == 0.75
    assert math.isnan(found["pnl_cache_hit_ratio", ("cache", "current"), ("level", "disk")])
    assert found["pnl_broadcasts_total", ("type", "delta")] == 2


def test_two_engines_of_one_process_do_not_share_a_count():
    """Nothing is global."""
    one, other = Metrics(), Metrics()

    one.broadcast("delta")

    assert ("pnl_broadcasts_total", ("type", "delta")) in scraped(one)
    assert ("pnl_broadcasts_total", ("type", "delta")) not in scraped(other)


def test_a_gauge_that_cannot_be_read_leaves_the_others(caplog):
    """It is left out, and the log says why."""
    metrics = Metrics()
    metrics.watch("pnl_sessions", lambda: 1 / 0)
    metrics.watch("pnl_queue_depth", lambda: {("store",): 2})

    found = scraped(metrics)

    assert ("pnl_sessions",) not in found
    assert found["pnl_queue_depth", ("queue", "store")] == 2
    assert "pnl_sessions cannot be read" in caplog.text


def test_a_gauge_that_does_not_exist_is_a_mistake_of_the_caller():
    """Gauges are declared in one place."""
    with pytest.raises(ValueError, match=f"'pnl_session' is no gauge; there are {', '.join(GAUGES)}"):
        Metrics().watch("pnl_session", dict)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_delivery_by_a_clock_that_is_wrong_is_left_out(seconds):
    """A histogram that took a NaN would be spoilt for ever."""
    metrics = Metrics()

    metrics.delivered(seconds)

    assert scraped(metrics)["pnl_ws_message_latency_seconds_count",] == 0
