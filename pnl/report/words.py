"""How a report says things: amounts that can be hidden, instants by the wall clock, text from outside tamed."""

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal

from pnl.records import CENT, MICRO, money

UNKNOWN = "—"
HIDDEN = "••••"
MOST_LETTERS = 140
MONEY = re.compile(r"(?:[-+−]\s?)?[$€£]\s?[-+−]?\d(?:[\d,.]*\d)?")


@dataclass(frozen=True, slots=True)
class Words:
    """One report's way to speak.

    Attributes:
        zone: By whose wall clock instants are told.
        hides: Whether amounts are replaced by `HIDDEN`, in texts from outside too.
    """

    zone: tzinfo
    hides: bool = False

    def usd(self, usd: Decimal | None, *, signed: bool = False) -> str:
        """US dollars to the cent; a dash for what is unknown."""
        return HIDDEN if self.hides and usd is not None else money(usd, signed=signed)

    def exact(self, usd: Decimal | None, *, signed: bool = False) -> str:
        """US dollars to the last digit of a micro-dollar, cents at least."""
        if usd is None or self.hides:
            return self.usd(usd)
        rounded = usd.quantize(MICRO)
        digits = f"{abs(rounded):,.6f}"
        shown = digits[:-4] + digits[-4:].rstrip("0")
        return f"{'-' if rounded < 0 else '+' if signed and rounded > 0 else ''}${shown}"

    def axis(self, usd: float, step: float) -> str:
        """A tick of an axis, without cents where the step between two ticks has none."""
        if self.hides:
            return HIDDEN
        digits = 0 if step >= 1 else 2
        return f"{'-' if usd < 0 else ''}${abs(usd):,.{digits}f}"

    def change(self, usd: Decimal | None, before: Decimal | None) -> str:
        """By how much a figure differs from that of the period before."""
        if usd is None or before is None:
            return UNKNOWN
        cents = (usd - before).quantize(CENT)
        sign = "▲" if cents > 0 else "▼" if cents < 0 else "="
        return f"{sign} {self.usd(abs(cents))}" if cents else "= same"

    def number(self, count: Decimal | None) -> str:
        """Contracts; hidden like an amount, for each is worth up to a dollar."""
        if count is None:
            return UNKNOWN
        return HIDDEN if self.hides else f"{count.normalize():,f}"

    def at(self, moment: datetime | None, unknown: str = UNKNOWN) -> str:
        """An instant, to the minute."""
        return unknown if moment is None else f"{moment.astimezone(self.zone):%Y-%m-%d %H:%M}"

    def said(self, text: str, most: int = MOST_LETTERS) -> str:
        """Text from outside, on one line and not longer than that; what does not print is left out."""
        one_line = " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text[: 20 * most]).split())
        shown = one_line if len(one_line) <= most else one_line[: most - 1].rstrip() + "…"
        return MONEY.sub(HIDDEN, shown) if self.hides else shown


def percent(share: Decimal | None) -> str:
    """A share of 0 to 1 as a person reads it."""
    return UNKNOWN if share is None else f"{share * 100:.1f} %"


def tone(usd: Decimal | None) -> str:
    """Whether it is a gain, a loss, or neither to the cent."""
    cents = None if usd is None else usd.quantize(CENT)
    return "flat" if not cents else "gain" if cents > 0 else "loss"
