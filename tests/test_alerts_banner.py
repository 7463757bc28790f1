"""The banner of alerts: only what stands badly, calm, as text, the same whether the server or the page drew it."""

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from browsing import opened
from markupsafe import Markup

from pnl.alerts import Alert, Alerts, AlertState, AlertWatch, Rules, budget_of
from pnl.records import Cost, CostDay
from pnl.views import AlertsView
from pnl.views.alerts import AlertTexts, alert_fields, alerts_html
from pnl.views.verdict import asset

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
HOSTILE = '<img src=x onerror="window.hurt=1">\t\n\'&'
DRAWN = """() => [...document.querySelectorAll(".alert")].map((row) => [
    row.dataset.is, row.innerText.replace(/\\s+/g, " ").trim(), row.querySelector("button").dataset.acknowledge])"""


def alerts_of(state=AlertState.FIRING, *, is_acknowledged=False, text="Daily loss 104 % of $20.00."):
    """One rule in a state, beside one that is well and one that is off."""
    loss = Alert(
        "daily_loss", state, NOW, text, (("KX-1", Decimal("-4.17")), (HOSTILE, Decimal(-1))),
        is_acknowledged=is_acknowledged,
    )  # fmt: skip
    return Alerts((loss, Alert("drift", AlertState.OK, NOW, "fine"), Alert("cost_budget", AlertState.OFF, NOW, "off")))


async def test_every_text_is_there_from_the_start():
    """A text that came later would have no place in the pages that are open."""
    watch = AlertWatch(Rules())
    texts = AlertTexts(watch)
    first = texts.newest()

    watch.current = alerts_of()

    assert first["alerts.state"] == first["budget.state"] == "off"
    assert texts.newest().keys() == first.keys()
    assert texts.newest()["alerts.state"] == "firing"


async def test_a_line_for_each_rule_whatever_is_in_a_ticker():
    """Cells stay in their places."""
    lines = alert_fields(alerts_of(), None)["alerts"].split("\n")

    assert [line.split("\t")[:4] for line in lines] == [
        ["daily_loss", "firing", "2026-11-22T14:05:00Z", "Daily loss limit"],
        ["drift", "ok", "2026-11-22T14:05:00Z", "Kalshi's own figures"],
        ["cost_budget", "off", "2026-11-22T14:05:00Z", "AI cost budget"],
    ]
    assert lines[0].count("\t") == 6


async def test_the_budget_has_its_words_and_its_share():
    """For the bar beside the AI cost; without a budget the words still tell the cost and its pace."""
    days = [CostDay("anthropic", NOW.date(), (Cost("anthropic", NOW.date(), "tokens", Decimal(155)),))]

    texts = alert_fields(Alerts(), budget_of(days, Decimal(250), NOW))

    assert texts["budget"] == "62 % of $250.00, on pace for $215"
    assert texts["budget.share"] == "0.6200"
    assert alert_fields(Alerts(), budget_of(days, None, NOW))["budget"] == "$155.00, on pace for $215"


@pytest.mark.parametrize("state", [AlertState.OK, AlertState.OFF])
async def test_nothing_is_shown_while_all_is_well(state):
    """Nor once somebody has seen it."""
    assert 'class="alert"' not in alerts_html(alert_fields(alerts_of(state), None))
    assert 'class="alert"' not in alerts_html(alert_fields(alerts_of(is_acknowledged=True), None))


async def test_the_banner_in_a_cell_follows_its_watch_and_escapes():
    """Without a server, a session or a script."""
    watch = AlertWatch(Rules(zone=NEW_YORK))
    pane = AlertsView(watch).__panel__()
    assert "Daily loss" not in pane.object

    watch.current = alerts_of()

    assert "Daily loss 104 % of $20.00." in pane.object
    assert "2026-11-22 09:05" in pane.object
    assert "<img" not in pane.object


def page_of(fields):
    script = f"<script>{asset('alerts.js')}</script>"
    banner = alerts_html(fields, NEW_YORK)
    style = f"<style>{asset('page.css')}{asset('alerts.css')}</style>"
    return Markup(f'<!doctype html><div class="pnl" data-zone="America/New_York">{style}{banner}{script}</div>')  # noqa: S704 - made of escaped parts


@pytest.mark.parametrize("state", [AlertState.FIRING, AlertState.NEAR, AlertState.NO_DATA])
async def test_the_page_draws_what_the_server_would(browser, state):
    """A text from outside is text either way, and says its state in a word."""
    fields = alert_fields(alerts_of(state, text=f"Loss {HOSTILE}"), None)
    async with opened(browser) as page:
        await page.set_content(page_of(fields))
        by_server = await page.evaluate(DRAWN)
        await page.set_content(page_of(alert_fields(Alerts(), None)))
        nothing = await page.evaluate(DRAWN)
        await page.evaluate("text => { document.querySelector('.alerts').dataset.is = text }", fields["alerts"])
        by_page = await page.evaluate(DRAWN)

        assert await page.evaluate("window.hurt") is None
        assert page.troubles == []
    assert nothing == []
    assert by_page == by_server
    ((drawn, text, name),) = by_page
    assert (drawn, name) == (state.value, "daily_loss")
    assert {"firing": "Alert", "near": "Near the limit", "no_data": "No data"}[drawn] in text
    assert "since 2026-11-22 09:05" in text
    assert "<img" in text


async def test_an_alert_is_acknowledged_by_its_name_and_stays_until_the_server_says_so(browser):
    """By pointer or keyboard; the button keeps the focus when the banner is drawn anew."""
    async with opened(browser, width=390) as page:
        await page.set_content(page_of(alert_fields(alerts_of(), None)))
        await page.evaluate("""() => { window.said = [];
            window.pnl = {tell: (_deed, name) => window.said.push(name), veiled: (text) => text} }""")
        button = page.get_by_role("button", name="Acknowledge: Daily loss limit")
        await button.click()
        await button.focus()
        redrawn = alert_fields(alerts_of(text="Daily loss 110 % of $20.00."), None)["alerts"]
        await page.evaluate("text => { document.querySelector('.alerts').dataset.is = text }", redrawn)
        await page.keyboard.press("Enter")

        assert await page.evaluate("window.said") == ["daily_loss", "daily_loss"]
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        assert (await button.bounding_box())["height"] >= 44
        seen = alert_fields(alerts_of(is_acknowledged=True), None)["alerts"]
        await page.evaluate("text => { document.querySelector('.alerts').dataset.is = text }", seen)
        assert await page.evaluate(DRAWN) == []
