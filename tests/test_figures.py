"""The figures that are worked out of others."""

from decimal import Decimal

from pnl.history.figures import Figures


def test_the_break_even_win_rate_leaves_nothing():
    """A worked example: wins of $3, losses of $2, and $1 of fees and AI for each of five closes."""
    figures = Figures(
        components={"kalshi_realized": Decimal(5), "kalshi_fees": Decimal(2), "billed_costs": Decimal(3)},
        won_usd=Decimal(9),
        lost_usd=Decimal(4),
        wins=3,
        losses=2,
        fills=6,
    )

    assert figures.win_rate == Decimal("0.6")
    assert figures.break_even_win_rate == Decimal("0.6")
    assert figures.net_usd == 0
    assert figures.cost_per_fill_usd == Decimal("0.5")


def test_rates_of_nothing_are_unknown():
    """Not zero."""
    figures = Figures(components={})

    assert (figures.win_rate, figures.break_even_win_rate, figures.cost_per_fill_usd) == (None, None, None)
