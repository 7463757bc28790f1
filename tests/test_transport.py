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
from hypothesis import given, settings
from hypothesis import strategies as st

from pnl.errors import BadRow, SourceBusy, SourceError, SourceRefused, SourceResting, SourceUnavailable
from pnl.records import Batch
from pnl.sources import rows
from pnl.sources.kalshi import explain
from pnl.sources.retry import retry_after_s
from pnl.sources.transport import (
    LARGEST_BODY_BYTES,
    Transport,
    _decode,
    _decode_leniently,
    merge,
    read_pages,
    side_by_side,
)

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


class Pauses(list):
    """How long each pause was; none of them takes time, but the clock moves on by them."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock

    async def __call__(self, pause_s):
        self.append(pause_s)
        self._clock.advance(seconds=pause_s)


@pytest.fixture
def pauses(clock):
    return Pauses(clock)


@pytest.fixture
async def hasty(clock, pauses):
    """A transport on the clock of the test, which pauses without waiting."""
    async with Transport(clock=clock.timestamp, now=clock, sleep=pauses) as transport:
        yield transport


class Turns:
    """A handler that gives one answer after the other, the last one for good, and counts."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked = 0

    async def answer(self, request):
        self.asked += 1
        turn = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return await turn(request)


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
    assert CANARY not in repr((failure.value.__cause__, failure.value.__context__))
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
        (500, SourceUnavailable),
        (503, SourceUnavailable),
        (529, SourceUnavailable),
        (501, SourceError),
        (204, SourceError),
    ],
)
async def test_a_refusal_carries_status_and_advice(serving, hasty, status, kind):
    """A wrong key does not heal by itself; too many requests and a broken server do."""
    url = await serving(saying(b'{"code": 7}', status))

    with pytest.raises(SourceError, match=f"answered HTTP {status}: check the key") as failure:
        await ask(hasty, url, explain=lambda status, body: f"check the key {status} {body}")

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


GOOD = saying(b'{"good": 1}')


async def reset(request):
    """A connection that is reset before a byte is answered."""
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("bad", [reset, *(saying(b"{}", status) for status in (500, 502, 503, 504, 529))])
async def test_what_may_pass_at_once_is_tried_twice_more(serving, hasty, pauses, bad):
    """A connection that was closed, a gateway in a bad moment: the poll does not lose its answer to it."""
    answers = Turns(bad, bad, GOOD)

    assert await ask(hasty, await serving(answers.answer)) == {"good": 1}
    assert answers.asked == 3
    assert len(pauses) == 2
    assert all(0 <= pause_s < 1 for pause_s in pauses)


async def test_three_attempts_are_all(serving, hasty):
    """The next poll comes soon enough."""
    answers = Turns(saying(b"{}", 500))

    assert (await failing(hasty, await serving(answers.answer))).endswith("answered HTTP 500")
    assert answers.asked == 3


@pytest.mark.parametrize("bad", [saying(b"{}", 400), saying(b"{}", 401), saying(b"{}", 501), saying(b"<html>")])
async def test_what_will_not_pass_is_not_tried_again(serving, hasty, bad):
    """A refusal stays one however often it is asked for."""
    answers = Turns(bad)

    await failing(hasty, await serving(answers.answer))

    assert answers.asked == 1


async def test_what_is_too_late_is_not_tried_again(serving):
    """The deadline has passed."""
    released = asyncio.Event()

    async def silent(_):
        await released.wait()

    answers = Turns(silent)
    async with Transport(deadline_s=0.1) as transport:
        await failing(transport, await serving(answers.answer))
        released.set()

    assert answers.asked == 1


async def test_attempts_and_pauses_share_one_deadline(serving, clock, pauses):
    """An answer that took most of it leaves no time for another attempt."""

    async def slow(_):
        clock.advance(seconds=2.999999)
        return web.Response(status=500)

    answers = Turns(slow)
    async with Transport(clock=clock.timestamp, now=clock, sleep=pauses) as transport:
        await failing(transport, await serving(answers.answer))

    assert answers.asked == 1


async def test_a_second_attempt_has_what_the_first_left_of_the_deadline(serving, clock, pauses):
    """However the attempts end, the request ends in time: here a tenth of a second is left, or this test hangs."""
    released = asyncio.Event()

    async def slow(_):
        clock.advance(seconds=3600)
        return web.Response(status=500)

    async def silent(_):
        await released.wait()

    answers = Turns(slow, silent)
    async with Transport(deadline_s=3601.1, clock=clock.timestamp, now=clock, sleep=pauses) as transport:
        text = await failing(transport, await serving(answers.answer))
        released.set()

    assert text.endswith("gave no whole answer within 3601.1 s")
    assert answers.asked == 2


async def test_headers_are_made_anew_for_each_attempt(serving, hasty):
    """A signature holds its time, and each attempt waits for its turn."""
    made = []

    async def headers():
        made.append(len(made))
        return {"x-api-key": f"key-{len(made)}"}

    sent = []

    async def bad(request):
        sent.append(request.headers["x-api-key"])
        return web.Response(status=500)

    with pytest.raises(SourceUnavailable):
        await hasty.get(f"{await serving(bad)}/path", source="kalshi", headers=headers)

    assert sent == ["key-1", "key-2", "key-3"]


async def test_progress_is_told_of_each_attempt_that_was_answered(serving, clock, pauses):
    """A source that answers 500 answers."""
    told = []
    async with Transport(clock=clock.timestamp, sleep=pauses, on_answer=lambda *who: told.append(who)) as transport:
        await ask(transport, await serving(Turns(saying(b"{}", 500), reset, GOOD).answer))

    assert told == [("kalshi", "/some/path")] * 2


async def test_a_busy_source_that_does_not_say_how_long_is_asked_a_few_times_more(serving, hasty, pauses):
    """The pauses grow, are never the same, and are not taken from the deadline: the source is not dead."""
    answers = Turns(*[saying(b"{}", 429)] * 5, GOOD)

    assert await ask(hasty, await serving(answers.answer)) == {"good": 1}
    assert answers.asked == 6
    assert len(set(pauses)) == 5
    assert all(pause_s <= most_s for pause_s, most_s in zip(pauses, (0.5, 1, 2, 2, 2), strict=True))


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_a_rest_that_fits_into_the_deadline_is_waited_for(serving, hasty, pauses, status):
    """The source says when it will answer; it is asked then, and not before."""
    answers = Turns(saying(b"{}", status, **{"Retry-After": "2"}), GOOD)

    assert await ask(hasty, await serving(answers.answer)) == {"good": 1}
    assert answers.asked == 2
    assert 2 <= pauses[0] <= 2.5


async def test_rests_that_fit_one_by_one_and_not_together_are_not_all_waited_for(serving, hasty, pauses):
    """Pauses are taken from the deadline too."""
    answers = Turns(saying(b"{}", 429, **{"Retry-After": "2"}))

    assert "limited, asked again at" in await failing(hasty, await serving(answers.answer))
    assert answers.asked == 2
    assert len(pauses) == 1


@pytest.mark.parametrize("value", ["30", "Sun, 22 Nov 2026 09:30:31 GMT"])
async def test_a_rest_that_does_not_fit_is_kept_by_all_requests(serving, hasty, clock, value):
    """No request before it has passed; the text tells the time."""
    clock.advance(milliseconds=750)
    answers = Turns(saying(b"{}", 429, **{"Retry-After": value}), GOOD)
    url = await serving(answers.answer)

    first = await failing(hasty, url)
    clock.advance(seconds=29.9)
    with pytest.raises(SourceResting) as resting:
        await ask(hasty, url)
    clock.advance(seconds=0.1)

    assert first.endswith("/some/path at " + url.removeprefix("http://") + " answered HTTP 429: limited, asked again "
                          "at 09:30:31 UTC")  # fmt: skip
    assert str(resting.value) == first
    assert answers.asked == 1
    assert await ask(hasty, url) == {"good": 1}


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("1", 1),
        ("299", 299),
        ("3600", 300),
        ("9" * 5000, 300),
        ("Sun, 22 Nov 2026 09:31:00 GMT", 59.75),
        ("Sunday, 22-Nov-26 09:31:00 GMT", 59.75),
        ("Sun, 22 Nov 2026 09:31:00 -0000", 59.75),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300),
        *((nonsense, None) for nonsense in ("0", "-1", "1.5", "1e3", "NaN", "soon", "²", "", " ", "Sun, 99 Nov 2026")),
        ("Sun, 22 Nov 2026 09:30:00 GMT", None),  # passed already
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Sun, 22 Nov 99999999999 09:31:00 GMT", None),
        (None, None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_and_else_nothing(clock, value, wait_s):
    """Five minutes at most: a source cannot send us away for a day by mistake."""
    assert retry_after_s(value, clock()) == wait_s


DATES = st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{5,9}( [+-][0-9]{1,9}| GMT)?")


@given(st.text() | DATES)
def test_a_retry_after_of_any_letters_is_read_or_ignored(value):
    """Everything from outside is hostile."""
    wait_s = retry_after_s(value, datetime(2026, 11, 22, tzinfo=UTC))

    assert wait_s is None or 0 < wait_s <= 300


@pytest.mark.parametrize("bad", [reset, saying(b"{}", 500), saying(b"{}", 401), saying(b"{}", 429), saying(b"<html>")])
async def test_a_source_that_goes_on_failing_is_asked_once_a_minute(serving, hasty, clock, bad):
    """An hour's outage, polled every two seconds: the first polls, then the probes."""
    answers = Turns(bad)
    url = await serving(answers.answer)
    at_first = None
    for _ in range(1800):
        with pytest.raises(SourceError):
            await ask(hasty, url)
        at_first = at_first or answers.asked
        clock.advance(seconds=2)

    assert at_first <= 6
    assert answers.asked - at_first <= 3 + 60
    assert hasty.breakers["kalshi"].state == "open"


async def test_a_source_that_rests_says_why_and_until_when(serving, hasty):
    """What a person reads on the page while nothing is asked."""
    url = await serving(saying(b"{}", 401))
    for _ in range(4):
        await failing(hasty, url, explain=lambda *_: "check the key")

    with pytest.raises(SourceResting) as resting:
        await ask(hasty, url)

    assert str(resting.value) == (
        "kalshi: not asked until 09:31:01 UTC after 4 failures in a row; the last: "
        f"/some/path at {url.removeprefix('http://')} answered HTTP 401: check the key"
    )


async def test_one_sick_source_leaves_the_others_alone(serving, hasty):
    """Each has a breaker of its own."""
    answers = Turns(*[saying(b"{}", 400)] * 4, GOOD)
    url = await serving(answers.answer)
    for _ in range(4):
        await failing(hasty, url)

    assert await hasty.get(url, source="john", headers={}) == {"good": 1}
    assert {source: breaker.state for source, breaker in hasty.breakers.items()} == {"kalshi": "open", "john": "closed"}


@pytest.mark.parametrize(("is_back", "asked"), [(True, 50), (False, 1)])
async def test_one_probe_goes_out_while_fifty_requests_wait(serving, hasty, clock, is_back, asked):
    """Counted at the server: its return is not its next burial."""
    probed, released = asyncio.Event(), asyncio.Event()
    count = 0

    async def held(_):
        nonlocal count
        count += 1
        probed.set()
        await released.wait()
        return web.Response(body=b"{}", status=200 if is_back else 500)

    bad = await serving(saying(b"{}", 400))
    for _ in range(4):
        await failing(hasty, bad)
    clock.advance(seconds=60)
    url = await serving(held)
    requests = [asyncio.create_task(ask(hasty, url)) for _ in range(50)]
    await probed.wait()
    state, in_flight = hasty.breakers["kalshi"].state, count
    released.set()
    ended = await asyncio.gather(*requests, return_exceptions=True)

    assert (state, in_flight) == ("half_open", 1)
    assert count == asked
    kinds = [type(end) for end in ended]
    assert kinds == [dict] * 50 if is_back else [SourceUnavailable, *[SourceResting] * 49]


async def test_a_cancelled_request_counts_for_nothing(serving, hasty):
    """A poll that is stopped says nothing about the source."""
    asked = asyncio.Event()

    async def silent(_):
        asked.set()
        await asyncio.Event().wait()

    url = await serving(silent)
    for _ in range(5):
        asked.clear()
        request = asyncio.create_task(ask(hasty, url))
        await asked.wait()
        request.cancel()
        await asyncio.wait([request])

    assert hasty.breakers["kalshi"].state == "closed"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp500"])
async def test_a_body_in_another_encoding_is_no_answer(serving, transport, encoding):
    """JSON is UTF-8 without a mark; a guess might be wrong by one letter."""
    text = await failing(transport, await serving(saying('{"ticker": "ÄÖÜ"}'.encode(encoding))))

    assert "not JSON" in text


async def test_half_a_surrogate_pair_in_utf_8_is_no_answer(serving, transport):
    """It could be read and not be stored."""
    assert "not JSON" in await failing(transport, await serving(saying(b'{"ticker": "\xed\xa0\x80"}')))


async def test_a_field_that_is_given_twice_is_left_to_its_row_to_refuse(serving, transport):
    """Neither value can be believed; the row is set aside and its neighbours count."""
    body = b'{"fills": [{"fee_cost": "0.01", "fee_cost": "99", "count_fp": "1.00"}, {"fee_cost": "0.02"}]}'
    bad, good = (await ask(transport, await serving(saying(body))))["fills"]

    with pytest.raises(BadRow, match="fee_cost is given twice, should be a number"):
        rows.amount(bad, "fee_cost")
    with pytest.raises(BadRow, match="fee_cost is given twice, should be a text"):
        rows.text(bad, "fee_cost")
    assert rows.amount(bad, "count_fp") == 1
    assert rows.amount(good, "fee_cost") == Decimal("0.02")


async def test_a_page_that_names_its_list_twice_is_no_answer(serving, transport):
    """The second one would hide the first."""
    text = await failing(transport, await serving(saying(b'{"fills": [1], "fills": []}')))

    assert text.endswith("answered with a field that is given twice; nothing of it was used")


PIECES = (
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b'"error"', b'"message"', b'"a"', b'"\\ud800"', b"\\", b"\0", b"\n"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"-", b"0", b"1", b"1.5", b"e999", b"e99999999999999999999", b"9" * 5000),
    *(
        b'{"error": {"message": ',
        b"[" * 3000,
        b"]" * 3000,
        b'{"a":' * 3000,
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xed\xa0\x80",
    ),
)
BODIES = st.binary() | st.binary(max_size=12).map(lambda drawn: b"".join(PIECES[byte % len(PIECES)] for byte in drawn))


@settings(max_examples=500)
@given(st.lists(BODIES, min_size=20, max_size=20))
def test_ten_thousand_bodies_of_any_bytes_are_decoded_or_refused(bodies):
    """Nothing that a server says breaks more than its own answer, and no advice is lost over it."""
    for body in bodies:
        with suppress(SourceError):
            _decode("kalshi: /path", body, HEADERS)
        explain(400, _decode_leniently(body.decode("utf-8", "replace")))


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
