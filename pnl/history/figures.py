"""The figures of a range, one definition of each for page, command, notebook and report; US dollars, exact."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from pnl.journal import COMPONENTS
from pnl.records import MICRO, ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What some postings made, by component, and how many there were.

    A *close* is a fill or a settlement that realized something; `won_usd` and `lost_usd` are what all closes with a
    gain, and with a loss, realized before fees, neither below zero. Sums are rounded to `finest_usd`, None: not at all.
    """

    components: Mapping[str, Decimal]
    won_usd: Decimal = ZERO
    lost_usd: Decimal = ZERO
    postings: int = 0
    fills: int = 0
    wins: int = 0
    losses: int = 0
    finest_usd: Decimal | None = None

    @classmethod
    def of(cls, row: Sequence[Any], **others: Any) -> Self:
        """From the row of `postings.SUMS`."""
        amounts = [Decimal(text) for text in row[: len(COMPONENTS) + 2]]
        counts = dict(zip(("postings", "fills", "wins", "losses"), row[len(amounts) :], strict=True))
        components = dict(zip(COMPONENTS, amounts, strict=False))
        return cls(components=components, won_usd=amounts[-2], lost_usd=amounts[-1], **counts, **others)

    @classmethod
    def sum_of(cls, parts: Iterable["Figures"], **others: Any) -> Self:
        """What these made together, exactly."""
        parts = list(parts)
        components = {name: sum((part.components.get(name, ZERO) for part in parts), ZERO) for name in COMPONENTS}
        counts = ("won_usd", "lost_usd", "postings", "fills", "wins", "losses")
        counted: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in counts}
        return cls(components=components, **counted, **others)

    @property
    def trading_usd(self) -> Decimal:
        """Realized on trades, before fees."""
        return self._part("kalshi_realized")

    @property
    def fees_usd(self) -> Decimal:
        """Fees of trading."""
        return self._part("kalshi_fees")

    @property
    def billed_usd(self) -> Decimal:
        """Billed costs."""
        return self._part("billed_costs")

    @property
    def estimated_usd(self) -> Decimal:
        """Costs that are not billed yet."""
        return self._part("estimated_costs")

    @property
    def costs_usd(self) -> Decimal:
        """Billed and estimated costs."""
        return self.billed_usd + self.estimated_usd

    @property
    def revenue_usd(self) -> Decimal:
        """Revenue of deals."""
        return self._part("total_revenue")

    @property
    def net_usd(self) -> Decimal:
        """Trading − fees − costs + revenue; open P&L is not in it."""
        return self.trading_usd - self.fees_usd - self.costs_usd + self.revenue_usd

    @property
    def exact(self) -> Self:
        """The same with fractions of a micro-dollar, as bills have them: so parts sum to it."""
        return replace(self, finest_usd=None)

    @property
    def closes(self) -> int:
        """How often something was won or lost."""
        return self.wins + self.losses

    @property
    def win_rate(self) -> Decimal | None:
        """The share of closes that won, 0 to 1; None without a close."""
        return Decimal(self.wins) / self.closes if self.closes else None

    @property
    def break_even_win_rate(self) -> Decimal | None:
        """The share of closes that had to win, at the average gain and loss of these, to pay fees and costs too.

        With the average gain W, the average loss L and fees and costs of c for each close it is (L + c) ÷ (W + L): so
        many wins leave nothing. Above 1 no share would have been enough. None unless there were wins and losses.
        """
        if not self.wins or not self.losses:
            return None
        gain, loss = self.won_usd / self.wins, self.lost_usd / self.losses
        overhead = (self.fees_usd + self.costs_usd) / self.closes
        return (loss + overhead) / (gain + loss)

    @property
    def cost_per_fill_usd(self) -> Decimal | None:
        """What each fill cost beside its fee, billed and estimated; None without a fill."""
        return self.costs_usd / self.fills if self.fills else None

    def _part(self, component: str) -> Decimal:
        usd = self.components.get(component, ZERO)
        return usd if self.finest_usd is None else usd.quantize(self.finest_usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked(Figures):
    """What was booked in a range, to the micro-dollar, and what was open at its two ends (None: not known)."""

    open_before_usd: Decimal | None = None
    open_after_usd: Decimal | None = None
    finest_usd: Decimal | None = MICRO

    @property
    def open_change_usd(self) -> Decimal | None:
        """By how much open P&L grew; what was open before the first snapshot is not known and counts as nothing."""
        return None if self.open_after_usd is None else self.open_after_usd - (self.open_before_usd or ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Figures):
    """One line of a breakdown; `name` is None for all that it does not speak of, `text` is what others wrote of it."""

    name: str | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Posting:
    """One row of the ledger: what one record did to the P&L, and its share `amount_usd` of what was asked for.

    `running_usd` is that share summed up to this row, in order of time. The other fields are those of
    `journal.Posting`.
    """

    kind: str
    source: str
    record: str
    at: datetime
    key: str
    text: str
    side: str
    contracts: Decimal | None
    price_usd: Decimal | None
    usd: Mapping[str, Decimal]
    amount_usd: Decimal
    running_usd: Decimal


@dataclass(frozen=True, slots=True)
class Postings:
    """Some rows of the ledger, and what all of those that were asked for sum to."""

    amount_usd: Decimal
    figures: Figures
    rows: tuple[Posting, ...]

    @property
    def count(self) -> int:
        """How many there are, beside these."""
        return self.figures.postings


@dataclass(frozen=True, slots=True)
class Version:
    """A record as the store had it, column by column, from `since` until another one took its place (None: it has it).

    Money is in integer micro-dollars, as the columns' names say.
    """

    table: str
    values: tuple[tuple[str, str], ...]
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Fall:
    """From a high of net P&L to the lowest point behind it, until the high was reached again (None: not yet)."""

    high_usd: Decimal
    high_at: datetime
    low_usd: Decimal
    low_at: datetime
    recovered_at: datetime | None

    @property
    def depth_usd(self) -> Decimal:
        """How deep it went."""
        return self.high_usd - self.low_usd


@dataclass(frozen=True, slots=True)
class Drawdowns:
    """The high-water mark, how far the newest minute is below it, and the deepest falls, the deepest first."""

    high_usd: Decimal | None
    high_at: datetime | None
    below_usd: Decimal | None
    falls: tuple[Fall, ...] = field(default=())
