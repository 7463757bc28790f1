"""Rules over what is known: each fires once past its limit, and neither fires nor resolves without its data."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnl.alerts import Alerts, AlertState, AlertWatch, Facts, Rules, Today, budget_of, judge, today_of
from pnl.journal import ADDED
from pnl.model import PnLModel
from pnl.records import Agreement, Batch, Cost, CostDay, Deal, Fill, Reading, Refused, Result, Settlement, State

NOW = datetime(2026, 11, 16, 12, 0, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
TODAY = NOW.date()
RULES = Rules(Decimal(20), Decimal(250), hold_s=120)
SOURCES = ("kalshi", "anthropic", "john")


def readings(**states):
    """Three sources, fresh unless told otherwise; one that is not has its last answer from 09:27."""
    last = NOW.replace(hour=9, minute=27)
    return tuple(
        Reading(name, state, as_of=NOW if state is State.FRESH else last, error=None if state is State.FRESH else "x")
        for name in SOURCES
        for state in [states.get(name, State.FRESH)]
    )


def cost_days(usd, *, day=TODAY, is_estimate=False):
    return [CostDay("anthropic", day, (Cost("anthropic", day, "tokens", Decimal(usd), is_estimate),), is_estimate)]


def facts_with(net="0", *, spent="0", at=NOW, agreement=Agreement.AGREES, sources=(), day=None, **changes):
    """What is known when a day made so much and a month cost so much."""
    day = at.date() if day is None else day
    facts = Facts(
        sources or readings(),
        budget_of(cost_days(spent, day=at.date()), RULES.budget_usd, at),
        Today(day, {"KXA-1": Decimal(net)}),
        agreement,
        Decimal("4.2") if agreement is Agreement.DRIFTS else Decimal(0),
    )
    return replace(facts, **changes)


class Watched:
    """Judges one thing after the other, and gathers what somebody would be told."""

    def __init__(self, rules=RULES):
        self.rules, self.alerts, self.at, self.news = rules, Alerts(), NOW, []

    def sees(self, facts, *, after_s=0):
        self.at += timedelta(seconds=after_s)
        self.alerts = judge(self.rules, facts, self.alerts, self.at)
        self.news += self.alerts.news
        return self

    def state(self, name):
        return self.alerts.get(name).state

    @property
    def told(self):
        return [(news.alert.name, "resolved" if news.is_resolved else "fired") for news in self.news]


def test_the_loss_limit_fires_once_at_the_limit_and_resolves_a_little_before_it():
    """Close to it is said from 80 % on; a figure that wavers around the limit is told of once."""
    watched = Watched()
    nets = ("-15.99", "-16", "-19.99", "-20", "-19.5", "-20.5", "-19.01", "-18.99", "-15.5", "-14.9")

    seen = [watched.sees(facts_with(net)).state("daily_loss").value for net in nets]

    assert seen == ["ok", "near", "near", "firing", "firing", "firing", "firing", "near", "near", "ok"]
    assert watched.told == [("daily_loss", "fired"), ("daily_loss", "resolved")]


def test_the_text_says_how_much_of_the_limit_and_what_is_not_known():
    """In plain words, with the markets that lost most."""
    refused = (Refused("fill", "f9", "no price"),)
    sources = (replace(readings()[0], refused=refused), readings()[1], Reading("john", State.NOT_CONFIGURED))
    markets = {"KXA": Decimal(-9), "KXB": Decimal(2), "KXC": Decimal(-4), "KXD": Decimal(-1), "KXE": Decimal(-2)}
    today = Today(NOW.date(), markets, costs_usd=Decimal("10.5"), is_estimate=True)

    alert = Watched().sees(facts_with(sources=sources, today=today)).alerts.get("daily_loss")

    assert alert.text == (
        "Daily loss 122 % of $20.00: -$24.50 realized today (trading -$14.00 − AI $10.50 + deals $0.00). "
        "Its AI cost is an estimate until it is billed. Rows that were set aside, not in it: 1. "
        "Not set up, so not in it: Deals."
    )
    assert alert.largest == (("KXA", -9), ("KXC", -4), ("KXE", -2))


@pytest.mark.parametrize("state", [State.STALE, State.DOWN])
def test_without_its_data_a_money_rule_keeps_what_it_was_and_says_so_after_its_hold(state):
    """R14: last known figures neither fire nor resolve it."""
    watched = Watched().sees(facts_with("-25"))
    silent = facts_with("0", spent="400", sources=readings(anthropic=state))

    early = watched.sees(silent, after_s=10).state("daily_loss")
    alert = watched.sees(silent, after_s=120).alerts.get("daily_loss")

    assert early is AlertState.FIRING
    assert (alert.state, alert.was) == (AlertState.NO_DATA, AlertState.FIRING)
    assert alert.text.startswith(
        "Daily loss limit suspended: no data from Anthropic since 09:27. Last known: Daily loss"
    )
    assert watched.state("cost_budget") is AlertState.NO_DATA
    assert ("cost_budget", "fired") not in watched.told
    assert [told for told in watched.told if told[0] == "daily_loss"] == [("daily_loss", "fired")]
    assert watched.sees(facts_with("-25"), after_s=5).state("daily_loss") is AlertState.FIRING
    assert watched.alerts.get("daily_loss").since == NOW
    assert ("daily_loss", "resolved") not in watched.told


def test_a_source_that_has_not_answered_yet_suspends_too():
    """There is no time to name."""
    sources = (Reading("kalshi", State.DOWN), *readings()[1:])

    watched = Watched().sees(facts_with("-25", sources=sources)).sees(facts_with("-25", sources=sources), after_s=120)

    assert "no data from Kalshi yet" in watched.alerts.get("daily_loss").text
    assert watched.told == []


def test_a_new_day_is_a_new_crossing_and_a_day_of_which_nothing_is_known_has_not_begun():
    """The limit is of one day: yesterday's alert ends with it, and today's is told again."""
    tomorrow = NOW.date() + timedelta(days=1)
    watched = Watched().sees(facts_with("-25"))

    watched.sees(facts_with("0", day=tomorrow, sources=readings(kalshi=State.STALE)), after_s=86_400)
    assert watched.told == [("daily_loss", "fired")]
    watched.sees(facts_with("-21", day=tomorrow))
    watched.sees(facts_with("-1", day=tomorrow + timedelta(days=1)))

    assert watched.told == [("daily_loss", "fired"), ("daily_loss", "fired"), ("daily_loss", "resolved")]


def test_what_was_acknowledged_yesterday_is_shown_again_today():
    """Nobody has seen today's loss, although the rule never stopped firing."""
    watched = Watched().sees(facts_with("-25"))
    watched.alerts = watched.alerts.acknowledged("daily_loss")

    alert = watched.sees(facts_with("-25", day=date(2026, 11, 17)), after_s=86_400).alerts.get("daily_loss")

    assert alert.is_shown
    assert alert.since == alert.fired_at == watched.at


def test_a_new_day_does_not_inherit_the_slack_of_the_last():
    """96 % is near the limit, not past it."""
    watched = Watched().sees(facts_with("-25")).sees(facts_with("-19.2", day=date(2026, 11, 17)))

    assert watched.state("daily_loss") is AlertState.NEAR


def test_the_budget_is_near_by_its_share_or_by_its_pace_and_fires_when_it_is_spent():
    """$130 in 15.5 of 30 days is on pace for $251."""
    watched = Watched()
    texts = [watched.sees(facts_with(spent=usd)).alerts.get("cost_budget") for usd in ("120", "130", "250")]

    assert [alert.state for alert in texts] == [AlertState.OK, AlertState.NEAR, AlertState.FIRING]
    assert texts[1].text == "AI cost 52 % of $250.00, on pace for $252, November by UTC days."
    assert watched.told == [("cost_budget", "fired")]


def test_a_budget_without_a_source_of_costs_knows_nothing():
    """Nothing spent is not what it would say."""
    facts = facts_with(sources=(readings()[0], Reading("anthropic", State.NOT_CONFIGURED)))

    watched = Watched().sees(facts).sees(facts, after_s=120)

    assert watched.state("cost_budget") is AlertState.NO_DATA
    assert "no source of AI cost is set up" in watched.alerts.get("cost_budget").text


def test_a_source_is_told_of_once_it_was_down_for_the_hold_and_with_what_came_when_it_is_back():
    """Stale is not down; an answer in between begins the hold anew."""
    down, well = facts_with(sources=readings(kalshi=State.DOWN), brought={"kalshi": Decimal(5)}), facts_with()
    watched = Watched().sees(down).sees(down, after_s=119).sees(well, after_s=1).sees(down, after_s=1)
    assert watched.sees(down, after_s=119).told == []

    alert = watched.sees(down, after_s=1).alerts.get("down.kalshi")
    watched.sees(facts_with(sources=readings(kalshi=State.STALE)), after_s=60)
    assert watched.state("down.kalshi") is AlertState.FIRING
    watched.sees(facts_with(brought={"kalshi": Decimal(17)}), after_s=780)

    assert alert.text == "Kalshi: down, no answer since 09:27. What was read of it until then stays."
    assert watched.told == [("down.kalshi", "fired"), ("down.kalshi", "resolved")]
    assert (
        watched.news[-1].text == "Kalshi: answering again; 12 fills came with its answer. It had fired 14 min before."
    )


def test_a_drift_is_told_of_after_the_hold_and_what_cannot_be_compared_changes_nothing():
    """A fill on its way is no drift, and a venue that does not answer is another rule's."""
    drifts, settling = facts_with(agreement=Agreement.DRIFTS), facts_with(agreement=Agreement.SETTLING)
    silent = facts_with(agreement=Agreement.UNKNOWN, sources=readings(kalshi=State.STALE))
    watched = Watched().sees(drifts).sees(settling, after_s=60).sees(drifts, after_s=60)
    assert watched.told == [("drift", "fired")]

    for nothing in (settling, silent):
        assert watched.sees(nothing, after_s=600).state("drift") is AlertState.FIRING
    watched.sees(facts_with(agreement=Agreement.UNKNOWN)).sees(facts_with(agreement=Agreement.UNKNOWN), after_s=120)

    assert watched.state("drift") is AlertState.NO_DATA
    assert watched.sees(facts_with()).told[-1] == ("drift", "resolved")


def test_rules_that_are_not_set_are_off():
    """Each says what to set."""
    off = Watched(Rules()).sees(facts_with("-1000", spent="9999", sources=(Reading("kalshi", State.NOT_CONFIGURED),)))

    assert {alert.state for alert in off.alerts.rules} == {AlertState.OFF}
    assert off.alerts.worst is AlertState.OFF
    assert "PNL_DAILY_LOSS_LIMIT" in off.alerts.get("daily_loss").text


def test_an_acknowledged_alert_is_not_shown_until_it_resolved_and_fires_again():
    """Missing data in between does not bring it back."""
    watched = Watched().sees(facts_with("-25"))
    watched.alerts = watched.alerts.acknowledged("daily_loss")
    silent = facts_with("-25", sources=readings(john=State.STALE))

    for facts in (facts_with("-30"), silent, silent, facts_with("-31")):
        assert not watched.sees(facts, after_s=120).alerts.get("daily_loss").is_shown
    watched.sees(facts_with("0")).sees(facts_with("-25"))

    assert watched.alerts.get("daily_loss").is_shown
    assert watched.alerts.worst is AlertState.FIRING


def test_a_clock_that_is_set_back_begins_the_hold_anew():
    """A hold is never over because the time makes no sense."""
    down = facts_with(sources=readings(kalshi=State.DOWN))
    watched = Watched().sees(down).sees(down, after_s=-3600)

    assert watched.sees(down, after_s=119).told == []
    assert watched.sees(down, after_s=1).told == [("down.kalshi", "fired")]


STEPS = st.lists(
    st.tuples(
        st.integers(-30, 5),
        st.sampled_from([State.FRESH, State.FRESH, State.STALE, State.DOWN]),
        st.sampled_from([0, 1, 119, 120, 4000]),
        st.integers(0, 1),
    ),
    max_size=30,
)


@given(STEPS)
def test_no_money_rule_says_anything_on_missing_data(steps):
    """Whatever came before: neither a firing nor an end of it, and what it was it stays."""
    watched, day = Watched(), NOW.date()
    for net, state, after_s, days in steps:
        day += timedelta(days=days)
        before, told = watched.alerts.get("daily_loss"), len(watched.told)
        facts = facts_with(str(net), spent=str(-net * 20), day=day, sources=readings(anthropic=state))
        after = watched.sees(facts, after_s=after_s).alerts.get("daily_loss")
        if state is not State.FRESH:
            assert {name for name, _ in watched.told[told:]} <= {"down.anthropic"}
            assert after.was is (AlertState.OK if before is None else before.was)


@given(STEPS)
def test_a_rule_fires_once_for_each_crossing(steps):
    """By a second reckoning: told past the limit, and not again before it was 5 % below it or the day was over."""
    watched, day, fired, expected = Watched(), NOW.date(), None, []
    for net, state, after_s, days in steps:
        day += timedelta(days=days)
        watched.sees(facts_with(str(net), day=day, sources=readings(kalshi=state)), after_s=after_s)
        if state is not State.FRESH:
            continue
        if net <= -20 and fired != day:
            fired = day
            expected.append("fired")
        elif fired is not None and (net > -19 or fired != day):
            fired = None
            expected.append("resolved")

    assert [what for name, what in watched.told if name == "daily_loss"] == expected


@pytest.mark.parametrize(
    ("now", "spent", "pace", "day_count"),
    [
        (datetime(2026, 11, 16, 0, 0, tzinfo=UTC), 30, 60, 16),
        (datetime(2026, 11, 1, 23, 59, tzinfo=UTC), 30, None, 1),
        (datetime(2026, 11, 30, 20, 0, tzinfo=NEW_YORK), 7, None, 1),  # December has begun in UTC
        (datetime(2028, 2, 15, 12, 0, tzinfo=UTC), 29, 58, 15),
    ],
)
def test_the_budget_is_of_the_calendar_month_of_utc(now, spent, pace, day_count):
    """Billed and estimated together; the pace is what the rest of the month at the same cost comes to."""
    of_this_month = now.astimezone(UTC).date().replace(day=1)
    days = [
        *cost_days(spent - 2, day=of_this_month),
        *cost_days(2, day=of_this_month + timedelta(days=1), is_estimate=True),
        *cost_days(1000, day=of_this_month - timedelta(days=1)),
    ]

    budget = budget_of(days, Decimal(100), now)

    assert (budget.spent_usd, budget.estimated_usd, budget.pace_usd) == (spent, 2, pace)
    assert (budget.share, budget.day_count) == (Decimal(spent) / 100, day_count)
    assert budget_of(days, None, now).share is None


class Told:
    """A source that is told what to say."""

    poll_s = 2.0

    def __init__(self, name):
        self.name = self.origin = name

    async def poll(self, known):
        raise NotImplementedError


def model_at(now, *, hours):
    """A model with a settled loss, a fee, costs and a deal, so many hours ago."""
    at = now - timedelta(hours=hours)
    fills = [
        Fill(f"f{n}", f"KX{n}-1-1", "yes", Decimal(10), Decimal("0.40"), Decimal("0.17"), is_taker=True, filled_at=at)
        for n in range(3)
    ]
    zero = Decimal(0)
    lost = Settlement("KX0-1-1", "KX0-1", Result.NO, Decimal(10), Decimal(4), zero, zero, zero, zero, None, at)
    model = PnLModel(now=lambda: now).read_from([Told(name) for name in SOURCES])
    model.accept("kalshi", Batch(fills=tuple(fills), settlements=(lost,)))
    model.accept("anthropic", Batch(cost_days=(*cost_days("1.5", day=now.date()), *cost_days(9, day=at.date()))))
    change = model.accept(
        "john", Batch(deals=(Deal("john", "d", Decimal(3), "won", at.date(), at, fee_usd=Decimal(1)),))
    )
    model.show(change.snapshot)
    return model


@pytest.mark.parametrize("hours", [0, 3, 8, 24])
@pytest.mark.parametrize("zone", [NEW_YORK, UTC, ZoneInfo("Asia/Tokyo")], ids=str)
def test_today_is_what_the_totals_by_day_say_of_it(hours, zone):
    """To the last digit, in each time zone; its markets sum to its trading."""
    model = model_at(NOW, hours=hours)

    today = today_of(model, zone, NOW)

    parts = model.day_totals(zone).get(today.day, {})
    assert today.net_usd == sum(usd if name in ADDED else -usd for name, usd in parts.items())
    assert sum(today.markets.values()) == today.trading_usd


def test_only_what_was_traded_today_is_of_today():
    """The day is half open, also for a market that was traded before it and after it."""
    start = datetime(2026, 11, 16, 5, 0, tzinfo=UTC)  # in New York
    instants = [start + timedelta(hours=hours) for hours in (-1, 0, 23, 24)]
    fills = [
        Fill(f"f{n}", "KXA-1-1", "yes", Decimal(1), Decimal("0.40"), Decimal(10) ** n, is_taker=True, filled_at=at)
        for n, at in enumerate(instants)
    ]
    model = PnLModel(now=lambda: NOW).read_from([Told("kalshi")])
    model.accept("kalshi", Batch(fills=tuple(fills)))

    assert today_of(model, NEW_YORK, NOW).markets == {"KXA-1-1": Decimal(-110)}


def test_the_largest_losses_come_from_the_ledger():
    """The market that settled at nothing, then those that only cost a fee."""
    today = today_of(model_at(NOW, hours=0), UTC, NOW)

    assert today.largest == (
        ("KX0-1-1", Decimal("-4.17")), ("KX1-1-1", Decimal("-0.17")), ("KX2-1-1", Decimal("-0.17")),
    )  # fmt: skip


def test_a_watch_says_what_changed_and_knows_no_rule_that_there_is_not(caplog):
    """Watched like the model's snapshot; a name from a page may be anything."""
    watch, heard = AlertWatch(replace(RULES, loss_limit_usd=Decimal(3))), []
    watch.param.watch(lambda event: heard.append(event.new.worst), "current")
    model = model_at(NOW, hours=0)

    news = [*watch.look(model, NOW), *watch.look(model, NOW)]

    assert heard == [AlertState.FIRING]
    assert [each.alert.name for each in news] == ["daily_loss"]
    assert not watch.acknowledge("<img>")
    assert watch.acknowledge("daily_loss")
    assert not watch.acknowledge("daily_loss")
    assert len(heard) == 2
    assert "alert daily_loss: firing" in caplog.text


def test_news_is_told_although_whoever_watches_breaks(caplog):
    """A page's mistake must not take the message."""

    def broken(_event):
        raise RuntimeError("broken today")

    watch = AlertWatch(replace(RULES, loss_limit_usd=Decimal(3)))
    watch.param.watch(broken, "current")

    (news,) = watch.look(model_at(NOW, hours=0), NOW)

    assert news.alert.name == "daily_loss"
    assert "whoever watches the alerts broke" in caplog.text


def test_nothing_is_judged_before_there_is_a_snapshot():
    """No rule is well or badly."""
    watch = AlertWatch(RULES)

    assert watch.look(PnLModel(), NOW) == ()
    assert watch.current == Alerts()


def test_what_was_told_is_not_told_again_after_a_restart(folder):
    """Nor is it shown again to who acknowledged it; the file is its owner's alone."""
    folder.mkdir()
    model, rules = model_at(NOW, hours=0), replace(RULES, loss_limit_usd=Decimal(3))
    first = AlertWatch(rules)
    first.recall(folder)
    assert first.look(model, NOW)
    first.acknowledge("daily_loss")
    first.keep()

    again = AlertWatch(rules)
    again.recall(folder)

    assert not again.is_to_be_kept
    assert again.current.get("daily_loss") == first.current.get("daily_loss")
    assert again.look(model, NOW + timedelta(minutes=1)) == ()
    assert again.current.get("daily_loss").is_acknowledged
    assert [(path.name, path.stat().st_mode & 0o777) for path in folder.iterdir()] == [("alerts.json", 0o600)]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"name": "x"}]', b"\xff" * 100])
def test_a_memory_that_is_spoilt_is_none(folder, caplog, content):
    """The dashboard starts all the same."""
    folder.mkdir()
    (folder / "alerts.json").write_bytes(content)
    watch = AlertWatch(RULES)

    watch.recall(folder)

    assert watch.current == Alerts()
    assert "alerts.json cannot be read" in caplog.text
    assert str(folder) not in caplog.text
