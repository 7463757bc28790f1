"""The deals of the business: won, invoiced, paid; now and then refunded or lost."""

from collections.abc import Sequence

from pnl.simulator.dice import dice
from pnl.simulator.nouns import DAY, SECOND, Deal, Status

_EVERY = 4 * DAY
_WORK = ("Forecast feed", "Dashboard set-up", "Model review", "Data clean-up", "Weekly report", "Alert service")


def deals_entered(seed: int, since: int, at: int, hostile: Sequence[str]) -> list[Deal]:
    """Every deal first entered in [since, at], as it stands at `at`, ordered by its latest change."""
    entered = (_deal(seed, slot, at, hostile) for slot in range(-(-since // _EVERY), at // _EVERY + 1))
    return sorted((deal for deal in entered if deal is not None), key=lambda deal: deal.key)


def _deal(seed: int, slot: int, at: int, hostile: Sequence[str]) -> Deal | None:
    random = dice(seed, "deal", slot)
    won_at = slot * _EVERY + int(random.random() * DAY) // SECOND * SECOND
    if won_at > at:
        return None
    cents = random.randrange(8_000, 60_001)
    invoiced_at = won_at + int(random.uniform(0.2, 2) * DAY) // SECOND * SECOND
    paid_at = invoiced_at + int(random.uniform(1, 9) * DAY) // SECOND * SECOND
    refunded_at = paid_at + int(random.uniform(1, 12) * DAY) // SECOND * SECOND
    fate = random.random()
    words = hostile[slot // 6 % len(hostile)] if slot % 6 == 0 else f"{random.choice(_WORK)} #{slot % 1000}"
    if fate < 1 / 9:
        return Deal(f"deal-{slot}", cents, won_at, "lost", won_at, words)
    fates: dict[Status, int] = {"won": won_at, "invoiced": invoiced_at, "paid": paid_at}
    if fate > 7 / 8:
        fates["refunded"] = refunded_at
    seen = {status: since for status, since in fates.items() if since <= at}
    status, updated_at = list(seen.items())[-1]
    return Deal(f"deal-{slot}", cents, won_at, status, updated_at, words, seen.get("paid"), seen.get("refunded"))
