"""Static files from the guarded server: compressed for whom it suits, kept for good, right in every part, no others."""

import asyncio
import gzip
from pathlib import Path
from urllib.parse import quote

import panel as pn
import pytest
from aiohttp import ClientSession
from bokeh.settings import settings
from browsing import chromium, number_moves, opened, served
from test_web import serving
from yarl import URL

from pnl.web.static import _compression, accepts_gzip

BOKEH = Path(settings.bokehjs_path())
PANEL = Path(pn.__file__).parent / "dist"
SCRIPT = "/static/js/bokeh.min.js"
FILES = {
    SCRIPT: BOKEH / "js/bokeh.min.js",
    "/static/extensions/panel/panel.min.js": PANEL / "panel.min.js",
    "/static/extensions/panel/css/loading.css": PANEL / "css/loading.css",
}
SHEET = "/components/panel.template.vanilla/VanillaTemplate/_css/vanilla.css"
PICTURE = "/static/extensions/panel/images/favicon.ico"
COLD_BYTES = 600_000


@pytest.fixture
async def address():
    async with serving() as (address, _app):
        yield address


@pytest.fixture
async def client():
    """A browser that leaves answers as they come and adds nothing to what is asked."""
    async with ClientSession(auto_decompress=False, skip_auto_headers={"Accept-Encoding"}) as client:
        yield client


async def ask(client, address, *, method="GET", takes="gzip", **headers):
    """The answer and its body; `takes` is what the browser says of encodings."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()} | (
        {"Accept-Encoding": takes} if takes else {}
    )
    async with client.request(method, URL(address, encoded=True), headers=sent) as answer:
        return answer, await answer.read()


@pytest.mark.parametrize("path", FILES)
async def test_who_takes_gzip_gets_it_and_everybody_gets_the_file(client, address, path):
    """To the byte, under the same type, and no cache between takes one for the other."""
    content = FILES[path].read_bytes()
    small, body = await ask(client, address + path, takes="gzip, deflate, br, zstd")
    plain, whole = await ask(client, address + path, takes=None)

    assert (small.status, small.headers["Content-Encoding"]) == (200, "gzip")
    assert len(body) == int(small.headers["Content-Length"]) < len(content)
    assert gzip.decompress(body) == whole == content
    assert (plain.status, plain.headers.get("Content-Encoding")) == (200, None)
    assert small.headers["Content-Type"] == plain.headers["Content-Type"]
    assert small.headers["Etag"] != plain.headers["Etag"]
    assert small.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    for answer in (small, plain):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.1", True),
        ("*", True),
        ("gzip;q=1.0, identity; q=0.5", True),
        ("", False),
        ("br, deflate", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("identity, *;q=0", False),
        ("xgzip", False),
    ],
)
def test_a_browser_says_whether_it_takes_gzip(header, expected):
    """By name, by a star, and not when the weight is nothing."""
    assert accepts_gzip(header) == expected


@pytest.mark.parametrize("takes", ["gzip", "identity"])
async def test_only_an_address_with_a_version_is_kept_for_good(client, address, takes):
    """Any other is asked for again, and costs no bytes while it is the same."""
    versioned, _body = await ask(client, f"{address}{SCRIPT}?v=1", takes=takes)
    other, _body = await ask(client, address + SCRIPT, takes=takes)
    missing, _body = await ask(client, f"{address}/static/nothing.js?v=1", takes=takes)

    assert versioned.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert other.headers["Cache-Control"] == "no-cache"
    assert "Expires" not in versioned.headers
    assert (missing.status, missing.headers["Cache-Control"]) == (404, "no-store")


@pytest.mark.parametrize("takes", ["gzip", "identity"])
async def test_what_the_browser_has_is_not_sent_again(client, address, takes):
    """By its name, or by its time; under the other encoding's name it has something else."""
    first, _body = await ask(client, f"{address}{SCRIPT}?v=1", takes=takes)
    other, _body = await ask(client, f"{address}{SCRIPT}?v=1", takes="identity" if takes == "gzip" else "gzip")
    again, body = await ask(client, f"{address}{SCRIPT}?v=1", takes=takes, If_None_Match=first.headers["Etag"])
    since = {"If_Modified_Since": first.headers["Last-Modified"]}
    unmodified, _body = await ask(client, f"{address}{SCRIPT}?v=1", takes=takes, **since)
    changed, _body = await ask(client, f"{address}{SCRIPT}?v=1", takes=takes, If_None_Match=other.headers["Etag"])

    assert (again.status, body, unmodified.status, changed.status) == (304, b"", 304, 200)
    for name in ("Etag", "Vary", "Cache-Control"):
        assert again.headers[name] == first.headers[name]
    assert "Content-Encoding" not in again.headers


@pytest.mark.parametrize(
    ("wanted", "part"),
    [("bytes=0-99", slice(0, 100)), ("bytes=1000-1001", slice(1000, 1002)), ("bytes=-7", slice(-7, None))],
)
async def test_a_part_is_a_part_of_the_file_itself(client, address, wanted, part):
    """Never of the compressed bytes, whatever the browser takes."""
    content = FILES[SCRIPT].read_bytes()
    answer, body = await ask(client, address + SCRIPT, Range=wanted)

    assert (answer.status, answer.headers.get("Content-Encoding")) == (206, None)
    assert body == content[part]
    assert answer.headers["Content-Range"].endswith(f"/{len(content)}")
    assert answer.headers["Vary"] == "Accept-Encoding"


async def test_a_part_behind_the_end_is_refused_and_a_part_of_something_else_is_sent_whole(client, address):
    """Whoever has the first half compressed must not be sent the second half of the file."""
    small, _body = await ask(client, address + SCRIPT)
    behind, _body = await ask(client, address + SCRIPT, Range="bytes=99999999-")
    resumed, body = await ask(client, address + SCRIPT, Range="bytes=10-", If_Range=small.headers["Etag"])

    assert behind.status == 416
    assert resumed.status == 200
    assert gzip.decompress(body) == FILES[SCRIPT].read_bytes()


@pytest.mark.parametrize("takes", ["gzip", "identity"])
async def test_a_head_says_what_a_get_would(client, address, takes):
    """Without the body."""
    got, body = await ask(client, f"{address}{SCRIPT}?v=1", takes=takes)
    head, nothing = await ask(client, f"{address}{SCRIPT}?v=1", takes=takes, method="HEAD")

    assert (head.status, nothing) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(body)
    assert {name: text for name, text in head.headers.items() if name != "Date"} == {
        name: text for name, text in got.headers.items() if name != "Date"
    }


async def test_a_picture_is_sent_as_it_is(client, address):
    """There is nothing to gain."""
    answer, body = await ask(client, address + PICTURE)

    assert (answer.status, answer.headers.get("Content-Encoding")) == (200, None)
    assert body == (PANEL / "images/favicon.ico").read_bytes()


async def test_many_who_ask_at_once_get_the_same(client, address):
    """The first of them has it compressed for all."""
    answers = await asyncio.gather(*(ask(client, f"{address}/static/js/bokeh-tables.js") for _ in range(20)))

    assert len({answer.headers["Etag"] for answer, _body in answers}) == 1
    assert {gzip.decompress(body) for _answer, body in answers} == {(BOKEH / "js/bokeh-tables.js").read_bytes()}


async def test_no_visitor_waits_for_the_largest_file(client):
    """It is compressed from the start, and whoever asks is handed just that."""
    _compression.cache_clear()
    async with serving() as (address, _app):
        begun = _compression.cache_info().misses
        answer, _body = await ask(client, address + SCRIPT)

    assert answer.headers["Content-Encoding"] == "gzip"
    assert begun == _compression.cache_info().misses == 1


@pytest.mark.parametrize("prefix", ["/money", "/a/b"])
async def test_it_is_the_same_under_a_prefix(client, prefix):
    """And there alone."""
    async with serving(prefix=prefix) as (address, _app):
        under, body = await ask(client, f"{address}{prefix}{SCRIPT}?v=1")
        beside, _body = await ask(client, f"{address}{SCRIPT}?v=1")

    assert (under.status, under.headers["Content-Encoding"], beside.status) == (200, "gzip", 404)
    assert gzip.decompress(body) == FILES[SCRIPT].read_bytes()


OUTSIDE = Path(pn.__file__)  # a file of text that exists, two folders from what is served
WAYS = [
    "/static/../../__init__.py",
    "/static/js/../../../__init__.py",
    "/static/..%2f..%2f__init__.py",
    "/static/%2e%2e/%2e%2e/__init__.py",
    "/static/extensions/panel/../__init__.py",
    "/static/extensions/panel/%2e%2e/__init__.py",
    "/static/extensions/panel/..%2f__init__.py",
    "/static/extensions/../extensions/panel/../__init__.py",
    "/static/extensions/panel/" + quote(str(OUTSIDE), safe=""),
    f"/static/extensions/panel/{OUTSIDE}",
    f"/static/{OUTSIDE}",
    "/static/" + quote(str(OUTSIDE), safe=""),
    "/static//etc/passwd",
    "/static/..\\..\\__init__.py",
    "/static/js/bokeh.min.js/../../../../__init__.py",
    "/static/js/bokeh.min.js%00.css",
    "/components/panel.template.vanilla/VanillaTemplate/_css/../../base.py",
    "/components/panel.template.vanilla/VanillaTemplate/_css/%2e%2e/base.py",
    "/components/panel.template.vanilla/VanillaTemplate/__module__/vanilla.css",
]


async def raw(address, path, *, takes):
    """The status line and the rest of an answer to a path that is sent as it stands."""
    reader, writer = await asyncio.open_connection("localhost", URL(address).port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {takes}\r\nConnection: close\r\n\r\n".encode()
    )
    status, _, rest = (await reader.read()).partition(b"\r\n")
    writer.close()
    return int(status.split()[1]), rest


@pytest.mark.parametrize("takes", ["gzip", "identity"])
@pytest.mark.parametrize("path", WAYS)
async def test_no_address_leads_out_of_the_folders(address, path, takes):
    """However it is written; what is outside is never read to be compressed either."""
    status, rest = await raw(address, path, takes=takes)

    assert status in {400, 403, 404}
    assert b"Content-Encoding" not in rest


async def test_no_more_than_static_files_changes(client, address):
    """A page is compressed for nobody: it holds a token beside what a visitor may have written."""
    page, _body = await ask(client, f"{address}/app")

    assert "Content-Encoding" not in page.headers
    assert page.headers["Cache-Control"] == "no-store"


async def test_behind_a_login_files_are_too(client, monkeypatch):
    """Compressed or not."""
    monkeypatch.setenv("PNL_PASSWORD", "correct horse battery")
    headers = {"Accept-Encoding": "gzip"}
    async with (
        serving() as (address, _app),
        client.get(address + SCRIPT, headers=headers, allow_redirects=False) as answer,
    ):
        assert answer.status == 302


async def test_a_first_visit_is_small_and_a_second_one_takes_no_file(client, tmp_path):
    """Of the dashboard itself, in a browser: all bytes that it was sent; its components too are compressed."""
    async with served(tmp_path) as (_process, address), chromium() as browser, opened(browser) as page:
        wire = await page.context.new_cdp_session(page)
        sizes = []
        wire.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        await wire.send("Network.enable")
        await page.goto(address)
        await number_moves(page)
        cold = sum(sizes)
        sizes.clear()
        await page.reload()
        await number_moves(page)

        assert page.troubles == []
        sheet, body = await ask(client, str(URL(address).origin()) + SHEET)
    assert gzip.decompress(body) == (Path(pn.__file__).parent / "template/vanilla/vanilla.css").read_bytes()
    assert sheet.headers["Content-Type"] == "text/css"
    assert 300_000 < cold <= COLD_BYTES
    assert sum(sizes) < cold / 4  # the page itself
