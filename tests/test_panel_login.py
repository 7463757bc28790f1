"""Panel's own basic auth before the whole dashboard, as the README tells how to start it."""

import json
import re

import pytest
from aiohttp import ClientSession, CookieJar, WSServerHandshakeError
from bokeh.util.token import get_token_payload
from browsing import number_moves, opened, served, until
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

USERS = {"ada": "a password of ada", "bob": "a password of bob"}
TOKEN = re.compile(r'"token":"([^"]+)"')


def basic_auth(folder):
    """The settings of Panel that have it ask for one of these names and passwords."""
    users = folder / "users.json"
    users.write_text(json.dumps(USERS))
    return {"PANEL_BASIC_AUTH": str(users), "PANEL_COOKIE_SECRET": "a secret of the cookies that is long"}


async def test_panel_asks_and_everything_else_is_for_whom_it_knows(browser, tmp_path):
    """The page, and also what Panel would hand out without asking: our routes, and those of other packages."""
    async with served(tmp_path / "data", **basic_auth(tmp_path)) as (process, address), opened(browser) as page:
        origin = address.removesuffix("/app")
        async with ClientSession() as stranger:
            for path in ("export", "report", "metrics", "readyz", "app/metadata", "static/js/bokeh.min.js"):
                async with stranger.get(f"{origin}/{path}", allow_redirects=False) as answer:
                    assert answer.status == 403, path
            async with stranger.get(address, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"].lstrip(".").partition("?")[0]) == (302, "/login")
            with pytest.raises(WSServerHandshakeError):
                await stranger.ws_connect(f"{address}/ws", protocols=("bokeh", "x"))

        await page.goto(address)
        await page.locator('[name="username"]').fill("ada")
        await page.locator('[name="password"]').fill(USERS["ada"])
        await page.locator('[type="submit"]').first.click()
        await number_moves(page)
        await expect(page.locator("button[data-record]").first).to_be_visible()

        html = await page.content()
        [token] = TOKEN.findall(html)
        assert get_token_payload(token)["cookies"] == {}
        assert "Cookie" not in get_token_payload(token)["headers"]
        for cookie in await page.context.cookies():
            assert cookie["name"] == "_xsrf" or cookie["value"] not in html
        assert (await page.context.request.get(f"{origin}/export?format=csv")).status == 200
        assert not any(password in "".join(process.said) for password in USERS.values())


async def test_panels_login_has_a_limit_of_tries(tmp_path):
    """It counts none itself."""
    async with served(tmp_path / "data", **basic_auth(tmp_path)) as (_process, address):
        answers = []
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as client:
            for _ in range(6):
                body = {"username": "ada", "password": "wrong"}
                async with client.post(
                    f"{address.removesuffix('/app')}/login", data=body, allow_redirects=False
                ) as answer:
                    answers.append(answer.status)

    assert answers == [302] * 5 + [429]


async def test_panels_login_and_ours_are_not_both_asked(tmp_path):
    """The page says which setting to take away; nothing is shown meanwhile."""
    settings = basic_auth(tmp_path) | {"PNL_PASSWORD": "long enough"}
    async with served(tmp_path / "data", **settings) as (process, _address):
        await until(lambda: any("set one of the two" in line for line in process.said))
