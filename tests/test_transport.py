"""One deadline, one body limit, no redirect, and every failure said in plain words without a key."""

import asyncio
import gzip
import ssl
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from zlib import compressobj

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pnl.errors import BadRow, SourceBusy, SourceError, SourceRefused
from pnl.records import Batch
from pnl.sources import rows
from pnl.sources.transport import LARGEST_BODY_BYTES, Transport, merge, read_pages, side_by_side

CANARY = "sk-ant-admin-canary-4711"
HEADERS = {"x-api-key": CANARY, "Authorization": f"Bearer {CANARY}"}


@pytest.fixture
async def serving():
    """A function that serves one handler at every path of a loopback server, and returns its address."""
    async with AsyncExitStack() as opened:

        async def serve(handler, **options):
            application = web.Application()
            application.add_routes([web.get("/{path:.*}", handler)])
            server = TestServer(application, **options)
            await server.start_server(**({"ssl": options["ssl"]} if "ssl" in options else {}))
            opened.push_async_callback(server.close)
            return str(server.make_url("")).rstrip("/")

        yield serve


def saying(body, status=200, **headers):
    """A handler that always says the same."""

    async def answer(_):
        return web.Response(body=body, status=status, headers=headers)

    return answer


async def ask(transport, url, **more):
    return await transport.get(f"{url}/some/path", source="kalshi", headers=HEADERS, **more)


async def failing(transport, url, **more):
    """The text of the error that a request ends in."""
    with pytest.raises(SourceError) as failure:
        await ask(transport, url, **more)
    assert str(failure.value).startswith("kalshi: /some/path at ")
    assert CANARY not in str(failure.value)
    assert CANARY not in repr(failure.value.__cause__)
    return str(failure.value)


async def test_an_answer_is_decoded_with_exact_numbers(serving, transport):
    """Numbers with a point are Decimal; headers and repeated parameters arrive."""
    asked = []

    async def answer(request):
        asked.append((request.headers["x-api-key"], request.query.getall("group_by[]")))
        return web.Response(body=b'{"a": 0.1, "b": [1], "c": "x"}')

    decoded = await ask(transport, await serving(answer), query=[("group_by[]", "model"), ("group_by[]", "tier")])

    assert decoded == {"a": Decimal("0.1"), "b": [1], "c": "x"}
    assert asked == [(CANARY, ["model", "tier"])]


async def test_the_deadline_includes_a_body_that_drips(serving):
    """A server that sends a byte now and then never holds a poll up for longer than the deadline."""
    released = asyncio.Event()

    async def drip(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while not released.is_set():
            await response.write(b" ")
            with suppress(TimeoutError):
                await asyncio.wait_for(released.wait(), 0.02)
        return response

    async with Transport(deadline_s=0.1) as transport:
        text = await failing(transport, await serving(drip))
        released.set()

    assert text.endswith("gave no whole answer within 0.1 s")


async def test_a_server_that_never_answers_meets_the_deadline(serving):
    """Connected and silent is as slow as dripping."""
    released = asyncio.Event()

    async def silent(_):
        await released.wait()

    async with Transport(deadline_s=0.1) as transport:
        text = await failing(transport, await serving(silent))
        released.set()

    assert text.endswith("gave no whole answer within 0.1 s")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(serving, transport, status):
    """By default aiohttp would carry the keys to the other host."""
    asked = []

    async def other_host(request):
        asked.append(request.path)
        return web.Response(body=b"{}")

    elsewhere = await serving(other_host)
    text = await failing(transport, await serving(saying(b"", status, Location=elsewhere)))

    assert f"answered HTTP {status}" in text
    assert asked == []


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
async def test_a_body_that_never_ends_is_cut_off(serving, transport, encoding):
    """The limit counts inflated bytes, so that a small bomb is stopped like a large page."""
    size = LARGEST_BODY_BYTES * 8
    squeeze = compressobj()
    bodies = {
        "identity": lambda: b" " * size,
        "gzip": lambda: gzip.compress(b" " * size),
        "deflate": lambda: squeeze.compress(b" " * size) + squeeze.flush(),
    }

    text = await failing(transport, await serving(saying(bodies[encoding](), **{"Content-Encoding": encoding})))

    assert text.endswith("sent more than 8 MB, which no page of it should")


@pytest.mark.parametrize(
    ("body", "head"),
    [
        (b"<html><title>Sign in to the network</title>", "'<html><title>Sign in to the network</title>'"),
        (b"", "''"),
        (b'{"fills": [', "'{\"fills\": ['"),
        (b"\xff\xfe\x00garbage", "garbage"),
        (b"1" * 5000, "'111"),
        (f"You sent {CANARY}".encode(), "'You sent ***'"),
    ],
)
async def test_an_answer_that_is_no_json_is_shown_by_its_first_letters(serving, transport, body, head):
    """A login page with status 200 is no answer; its beginning tells the person whose page it is."""
    text = await failing(transport, await serving(saying(body)))

    assert "answered with something that is not JSON (it begins " in text
    assert head in text
    assert text.endswith("nothing of it was used")


async def test_deep_nesting_is_no_answer(serving, transport):
    """A hundred thousand brackets break the decoder's stack, and nothing else."""
    text = await failing(transport, await serving(saying(b"[" * 100_000 + b"]" * 100_000)))

    assert "not JSON" in text


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "1e99999999999999999999"])
async def test_a_number_that_is_none_is_left_to_the_row_to_refuse(serving, transport, literal):
    """One bad figure costs its row and not the page."""
    page = await ask(transport, await serving(saying(f'{{"fee_cost": {literal}, "count_fp": "1.00"}}'.encode())))

    assert rows.amount(page, "count_fp") == 1
    with pytest.raises(BadRow, match=r"fee_cost is .*, should be a finite number"):
        rows.amount(page, "fee_cost")


async def test_a_refused_connection_says_so(transport):
    """Nobody listens: the address is the first thing to look at."""
    text = await failing(transport, f"http://127.0.0.1:{unused_port()}")

    assert text.endswith("cannot be reached (Connection refused); is the address right?")


async def test_a_name_that_does_not_exist_says_so(transport):
    """`.invalid` never resolves."""
    text = await failing(transport, "https://pnl.invalid")

    assert "cannot be reached (" in text


def certificate_of_nobody(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    since = datetime.now(UTC) - timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, since, since + timedelta(days=9))
    pem = folder / "tls.pem"
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    signed = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain) + signed)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context


async def test_a_certificate_of_nobody_is_refused_before_a_key_is_sent(serving, transport, tmp_path):
    """TLS without a known signer is no TLS."""
    asked = []

    async def answer(request):
        asked.append(request.path)

    url = await serving(answer, scheme="https", ssl=certificate_of_nobody(tmp_path))
    text = await failing(transport, url)

    assert "certificate verify failed" in text
    assert asked == []


async def test_a_connection_that_breaks_off_says_so(serving, transport):
    """Half an answer is none."""

    async def breaking(request):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"fills":')
        request.transport.abort()
        return response

    text = await failing(transport, await serving(breaking))

    assert "broke off (ClientPayloadError)" in text


async def test_a_body_that_is_not_what_its_encoding_says_is_no_answer(serving, transport):
    """Damaged gzip is a failure of the source like any other."""
    text = await failing(transport, await serving(saying(b"no gzip", **{"Content-Encoding": "gzip"})))

    assert "broke off" in text


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, SourceRefused),
        (401, SourceRefused),
        (404, SourceRefused),
        (429, SourceBusy),
        (500, SourceError),
        (503, SourceError),
        (204, SourceError),
    ],
)
async def test_a_refusal_carries_status_and_advice(serving, transport, status, kind):
    """A wrong key does not heal by itself; too many requests and a broken server do."""
    url = await serving(saying(b'{"code": 7}', status))

    with pytest.raises(SourceError, match=f"answered HTTP {status}: check the key") as failure:
        await ask(transport, url, explain=lambda status, body: f"check the key {status} {body}")

    assert type(failure.value) is kind
    assert getattr(failure.value, "status", status) == status


async def test_a_refusal_that_sends_the_keys_back_is_shown_without_them(serving, transport):
    """A debugging proxy may answer with the request; logs must not hold it."""

    async def echo(request):
        return web.json_response({"message": f"no such key: {request.headers['Authorization']}"}, status=401)

    text = await failing(transport, await serving(echo), explain=lambda _, body: body["message"])

    assert text.endswith("answered HTTP 401: no such key: *** ***")


async def test_a_refusal_in_html_has_no_body_to_explain(serving, transport):
    """The proxy in front of an API answers in its own words."""
    url = await serving(saying(b"<html>Bad gateway</html>", HTTPStatus.BAD_GATEWAY))

    assert (await failing(transport, url, explain=lambda _, body: f"{body}")).endswith("answered HTTP 502: None")


async def test_progress_is_told_of_each_answer(serving):
    """For a progress bar: who asked, and the path."""
    told = []

    async with Transport(on_answer=lambda source, path: told.append((source, path))) as transport:
        await ask(transport, await serving(saying(b"{}")))

    assert told == [("kalshi", "/some/path")]


async def test_cookies_are_not_kept(serving, transport):
    """No state travels from one answer to the next request."""
    sent = []

    async def answer(request):
        sent.append(dict(request.cookies))
        response = web.Response(body=b"{}")
        response.set_cookie("session", "1")
        return response

    url = (await serving(answer)).replace("127.0.0.1", "localhost")  # only named hosts have cookies
    await ask(transport, url)
    await ask(transport, url)

    assert sent == [{}, {}]


async def test_a_transport_that_is_not_open_is_a_mistake_of_the_caller():
    """It is opened and closed by one hand."""
    with pytest.raises(RuntimeError, match="async with"):
        await ask(Transport(), "http://127.0.0.1:1")


def pages(*answers):
    """A reader of pages that were prepared, by cursor."""
    prepared = iter(answers)

    async def read(_):
        return next(prepared)

    return read


async def test_pages_are_read_up_to_the_last():
    """An empty cursor ends the list, an empty page does not."""
    assert await read_pages("list", pages(([1], "a"), ([], "b"), ([2], ""))) == [1, 2]


@pytest.mark.parametrize("answers", [[([1], "a")] * 2, [([1], "a"), ([2], "b"), ([3], "a")]])
async def test_a_cursor_that_comes_again_ends_in_an_error(answers):
    """Half a list is not believed."""
    with pytest.raises(
        SourceError, match="list repeats its cursor 'a', so the list has no end; nothing of it was used"
    ):
        await read_pages("list", pages(*answers))


async def test_one_feed_that_fails_leaves_the_others_their_answers():
    """The good ones come back beside the errors; a mistake in our own code is never swallowed."""

    async def good():
        return Batch(refused=("one row",))

    async def failing():
        raise SourceError("too slow")

    async def broken():
        raise KeyError("ours")

    batches, errors = await side_by_side(good(), failing())

    assert merge(batches, errors) == Batch(refused=("one row",), error="too slow")
    with pytest.raises(KeyError):
        await side_by_side(good(), broken())
