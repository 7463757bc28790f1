"""Chance that is always the same: the dice of a world are thrown by what they decide."""

from random import Random


def dice(seed: int, subject: str, number: int) -> Random:
    """Dice for one market, hour or deal of the world `seed`; the same wherever and whenever they are thrown."""
    return Random(f"{seed} {subject} {number}")  # noqa: S311 (nothing secret is drawn)
