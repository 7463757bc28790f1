"""The dashboard as a process, and a real browser that looks at it."""

import asyncio
import os
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager
from decimal import Decimal
from inspect import isawaitable
from pathlib import Path

import pytest
from playwright.async_api import expect

from pnl.bench.browser import NoBrowser, executable
from pnl.bench.browser import chromium as installed_chromium

ROOT = Path(__file__).parents[1]
MONEY = re.compile(r"^-?\$[\d,]+\.\d\d$")
COUNT_LATE = """() => {
    window.late = 0;
    const page = document.querySelector(".pnl");
    new MutationObserver(() => { window.late += page.classList.contains("is-late") }).observe(page, {attributes: true});
}"""

LONGEST_MS = 60_000  # a busy machine is slow
expect.set_options(timeout=LONGEST_MS)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(folder, **settings):
    """The environment of a fresh user, plus what is set."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PNL_")}
    return {**plain, "PNL_DATA_DIR": str(folder), "PNL_METRICS_PORT": "0", **settings}


@asynccontextmanager
async def served(folder, *, port=None, command=("panel", "serve", "app/", "--warm"), **settings):
    """The dashboard as a process; yields it and the page's address once it listens.

    What it says gathers in `process.said`, line by line.
    """
    port = port or free_port()
    command = (sys.executable, "-m", *command, "--port", str(port))
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=environment(folder, **settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    process.said = []
    drain = None
    try:
        async for line in process.stdout:
            process.said.append(line.decode())
            if "Starting Bokeh server with process id" in process.said[-1]:
                break
        drain = asyncio.create_task(_keep(process))  # a full pipe would stop the server
        yield process, f"http://localhost:{port}/app"
    except BaseException:
        print("".join(process.said))  # noqa: T201 - pytest shows it beside what failed
        raise
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)
        if drain is not None:
            await drain


async def _keep(process):
    async for line in process.stdout:
        process.said.append(line.decode())


def complaint(said):
    """What a process said from its first traceback on; empty if there is none."""
    first = next((at for at, line in enumerate(said) if "Traceback" in line), len(said))
    return "".join(said[first : first + 80])


def require_chromium():
    """Skip the test where there is no browser."""
    try:
        executable()
    except NoBrowser as missing:
        (pytest.fail if "CI" in os.environ else pytest.skip)(str(missing))


@asynccontextmanager
async def chromium():
    """Debian's own browser, which reaches this machine and no other."""
    require_chromium()
    async with installed_chromium() as browser:
        yield browser


@asynccontextmanager
async def opened(browser, *, width=1280, **options):
    """A page in a fresh profile, with what went wrong in it and what it asked of other machines."""
    context = await browser.new_context(viewport={"width": width, "height": 850}, **options)
    context.set_default_timeout(LONGEST_MS)
    page = await context.new_page()
    page.troubles = []
    page.on("pageerror", lambda error: page.troubles.append(f"error: {error}"))
    page.on("console", lambda said: page.troubles.append(said.text) if said.type == "error" else None)
    page.on("dialog", lambda dialog: page.troubles.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: _note_stranger(page, request.url))
    yield page
    await context.close()


@asynccontextmanager
async def visit(browser, address, **options):
    """The page at an address, in a fresh profile."""
    async with opened(browser, **options) as page:
        await page.goto(address)
        yield page


def _note_stranger(page, url):
    if not re.match(r"^(https?|ws)://(localhost|127\.0\.0\.1):|^(data|blob):", url):
        page.troubles.append(f"asked another machine: {url}")


async def number_moves(page):
    """The net P&L is a number, and becomes another one."""
    net = page.locator('.net [data-text="net"]')
    await expect(net).to_have_text(MONEY)
    await expect(net).not_to_have_text(await net.inner_text())


async def answered(page):
    """Everything that asks the history has its answer."""
    await expect(page.locator("[data-ledger-count]")).to_have_text(re.compile(r"^[\d,]+ rows$"))
    await expect(page.locator("[data-parts] tr").first).to_be_visible(timeout=20_000)


def usd(text):
    """An amount as the page writes it."""
    return Decimal(text.replace("$", "").replace(",", "").replace("−", "-").replace("+", "").removesuffix(" est."))


async def until(is_so, *, within_s=60):
    """Wait for a condition, a function or an async one."""
    async with asyncio.timeout(within_s):
        while True:
            claim = is_so()
            if await claim if isawaitable(claim) else claim:
                return
            await asyncio.sleep(0.05)


def lost(page):
    """The line that says what is wrong with the server; empty while nothing is."""
    return page.locator("p.lost")


def settings_of(simulator):
    """The settings that point a server at a simulated venue."""
    return {
        "PNL_KALSHI_URL": simulator.kalshi_url,
        "PNL_KALSHI_KEY_ID": simulator.key_id,
        "PNL_KALSHI_PRIVATE_KEY_PATH": str(simulator.private_key_path),
    }
