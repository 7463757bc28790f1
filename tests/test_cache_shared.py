"""The level that processes share: what another one finds, what is refused, and that its loss changes no answer."""

import asyncio
import logging
import signal
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from redis_here import asked, started

from pnl.cache import CURRENT, Cache, Server, kept_s, minute_key
from pnl.cache.link import in_words
from pnl.cache.row import LARGEST_BYTES
from pnl.cache.shared import BELIEVED_S, MOST_TOGETHER
from pnl.errors import SourceError

CANARY = "canary-4711"
SPACE = "a-folder"
KEY = f"pnl:1:{SPACE}:key"


async def nothing():
    raise AssertionError("a hit asks nobody")


async def local():
    return b"local"


async def down():
    raise SourceError("the venue is down")


class Processes:
    """Caches as several processes have them, on one clock; each hears of what happens to the server in `said`."""

    def __init__(self, redis, clock):
        self.redis, self.clock, self.said = redis, clock, []

    def one(self, *, writes, url=None, space=SPACE, **settings):
        server = Server(url or self.redis.url, space, writes=writes, on_change=self.said.append)
        return Cache(None, server=server, clock=self.clock.timestamp, wall=self.clock.timestamp, **settings)

    @asynccontextmanager
    async def two(self):
        """The one that writes, and one that has heard of it."""
        async with self.one(writes=True) as writer, self.one(writes=False) as reader:
            await heard(writer, reader)
            yield writer, reader


@pytest.fixture
def processes(redis, clock):
    return Processes(redis, clock)


async def heard(writer, reader):
    """Wait until the reader knows the generation that is written now."""
    await until(lambda: reader.shared._generation == writer.shared._generation != b"")


async def until(claim):
    """Wait for the server, or for what is done in the background."""
    async with asyncio.timeout(60):
        while not claim():  # noqa: ASYNC110 - another program has no event for the loop
            await asyncio.sleep(0.01)


async def found(cache, key="key", fetch=local):
    answer = await cache.get(key, fetch, ttl_s=10)
    return answer.value, answer.state, answer.level


# What another process finds


async def test_a_value_of_one_process_is_found_by_another_with_its_age(processes):
    """From the server first, then from its own memory; its age counts from when it was stored."""
    async with processes.two() as (writer, reader):
        writer.put("key", b"1", 250)
        await writer.flush()

        first = await reader.get("key", nothing, ttl_s=10)
        second = await reader.get("key", nothing, ttl_s=10)

        assert (first.value, first.state, first.level) == (b"1", "fresh", "shared")
        assert 0 <= first.age_s < 10
        assert second.level == "memory"
        assert reader.stats.shared.hits == 1


async def test_peek_answers_at_once_and_does_not_ask_the_server(processes):
    """It is for those who cannot wait."""
    async with processes.two() as (writer, reader):
        writer.put("key", b"1", 250)
        await writer.flush()

        assert reader.peek("key") is None
        assert writer.peek("key").level == "memory"


async def test_a_hundred_who_ask_at_once_share_one_question_to_the_server(processes):
    """It is the first step of the fetch that they share."""
    async with processes.two() as (writer, reader):
        writer.put("key", b"1", 250)
        await writer.flush()

        answers = await asyncio.gather(*(reader.get("key", nothing, ttl_s=10) for _ in range(100)))

        assert {answer.value for answer in answers} == {b"1"}
        assert reader.stats.shared.hits == 1


async def test_a_value_past_its_ttl_is_fetched_anew(processes):
    """The server keeps it for longer, for a fetch that fails."""
    async with processes.two() as (writer, reader):
        writer.put("key", b"1", 0)
        await writer.flush()

        assert await found(reader) == (b"local", "fresh", "store")
        assert reader.stats.shared.misses == 1


async def test_the_last_value_stands_in_for_a_fetch_that_fails(processes):
    """Stale-if-error holds on this level too."""
    async with processes.two() as (writer, reader):
        writer.put("key", b"1", 0)
        await writer.flush()

        assert await found(reader, fetch=down) == (b"1", "stale", "shared")
        assert reader.stats.shared.stale == 1


@pytest.mark.parametrize("key", [CURRENT, minute_key(0), "history:day", "other"])
async def test_the_server_lets_go_of_a_value_after_what_its_kind_is_kept(processes, redis, key):
    """Nothing stays on it for ever, whoever forgets to delete it."""
    async with processes.one(writes=True) as writer:
        writer.put(key, b"1", 1e6)
        await writer.flush()

        assert 0 < await asked(redis, "PTTL", f"pnl:1:{SPACE}:{key}") <= 1000 * kept_s(key)


async def test_a_drop_reaches_the_others(processes):
    """And a put after it too: the last word counts."""
    async with processes.two() as (writer, reader):
        for key in ("dropped", "kept"):
            writer.put(key, b"1", 250)
            writer.drop(key)
        writer.put("kept", b"2", 250)
        await writer.flush()

        assert await found(reader, "dropped") == (b"local", "fresh", "store")
        assert await found(reader, "kept", nothing) == (b"2", "fresh", "shared")


async def test_a_fill_drops_the_minutes_that_it_changes_for_all(processes, clock):
    """The cascade is the same as on disk."""
    now_ms = int(clock.timestamp()) // 60 * 60_000
    keys = [CURRENT, *(minute_key(now_ms - back * 60_000) for back in range(11))]
    async with processes.two() as (writer, reader):
        for key in keys:
            writer.put(key, b"1", 250)
        writer.on_fill(clock())
        await writer.flush()

        assert [(await found(reader, key))[2] for key in keys] == [*["store"] * 11, "shared"]


async def test_what_is_dropped_while_the_server_answers_is_not_kept(processes, redis, clock):
    """The answer is from before the drop."""
    async with processes.one(writes=True) as writer:
        writer.put("key", b"old", 250)
        await writer.flush()
        clock.advance(seconds=1)  # memory asks again
        redis.signal(signal.SIGSTOP)
        asking = asyncio.create_task(writer.get("key", local, ttl_s=10))
        await asyncio.sleep(0)
        writer.drop("key")
        redis.signal(signal.SIGCONT)

        assert (await asking).value == b"local"
        assert writer.peek("key") is None


async def test_what_is_queued_counts_before_it_is_written(processes, redis, clock):
    """A server that takes its time shows nothing old to the one who writes."""
    async with processes.one(writes=True) as writer:
        for key in ("dropped", "put"):
            writer.put(key, b"old", 250)
        await writer.flush()
        redis.signal(signal.SIGSTOP)
        writer.drop("dropped")
        writer.put("put", b"new", 250)
        clock.advance(seconds=1)

        assert await found(writer, "dropped") == (b"local", "fresh", "store")
        assert (await found(writer, "put", nothing))[0] == b"new"
        redis.signal(signal.SIGCONT)


async def test_much_is_written_a_part_at_a_time(processes, redis):
    """And all of it arrives."""
    async with processes.one(writes=True) as writer:
        for number in range(3 * MOST_TOGETHER + 1):
            writer.put(f"history:{number}", b"1", 250)
        assert writer.waiting > 0
        await writer.flush()

        assert writer.waiting == 0
        assert await asked(redis, "DBSIZE") == 3 * MOST_TOGETHER + 1


async def test_a_value_that_is_too_large_takes_the_one_before_it_along(processes, redis):
    """Memory keeps it."""
    async with processes.one(writes=True) as writer:
        writer.put("key", b"1", 250)
        writer.put("key", bytes(LARGEST_BYTES + 1), 250)
        await writer.flush()

        assert await asked(redis, "EXISTS", KEY) == 0
        assert len(writer.peek("key").value) == LARGEST_BYTES + 1


async def test_only_one_process_writes(processes, redis):
    """What another one fetches stays in its own memory."""
    async with processes.two() as (_writer, reader):
        assert await found(reader) == (b"local", "fresh", "store")
        reader.drop("key")
        await reader.flush()

        assert await asked(redis, "DBSIZE") == 0


async def test_two_programs_may_share_a_server(processes):
    """Their folders differ, and with them all their keys and what they tell."""
    other = processes.one(writes=True, space="another")
    async with processes.two() as (writer, reader), other:
        other.put("key", b"theirs", 250)
        await other.flush()

        assert await found(reader) == (b"local", "fresh", "store")
        assert reader.shared._generation == writer.shared._generation


# What is refused


async def foreign(redis):
    await asked(redis, "SET", KEY, b"\x80\x04K\x01.", "PX", 100_000)


async def flipped(redis):
    row = await asked(redis, "GET", KEY)
    await asked(redis, "SET", KEY, row[:-1] + bytes([row[-1] ^ 1]), "KEEPTTL")


async def of_another_key(redis):
    await asked(redis, "COPY", f"pnl:1:{SPACE}:other", KEY, "REPLACE")


async def of_another_type(redis):
    await asked(redis, "DEL", KEY)
    await asked(redis, "LPUSH", KEY, "1")


async def kept_for_ever(redis):
    await asked(redis, "PERSIST", KEY)


@pytest.mark.parametrize("spoil", [foreign, flipped, of_another_key, of_another_type, kept_for_ever])
async def test_a_row_that_nobody_here_has_written_is_a_miss_and_is_deleted(processes, redis, clock, spoil):
    """Whatever lies on the server, what is answered is right, and the error is counted."""
    async with processes.two() as (writer, reader):
        writer.put("key", b"1", 250)
        writer.put("other", b"other", 250)
        await writer.flush()
        await spoil(redis)
        clock.advance(seconds=1)

        assert await found(reader) == (b"local", "fresh", "store")
        assert await found(writer) == (b"local", "fresh", "store")
        assert reader.stats.shared.errors == writer.stats.shared.errors == 1
        await writer.flush()
        clock.advance(seconds=1)
        assert await found(writer, fetch=nothing) == (b"local", "fresh", "shared")


@pytest.mark.parametrize("said", [b"", b"nonsense?", b"\xff" * 7])
async def test_nonsense_on_the_channel_is_not_heard(processes, redis, said):
    """Whoever else can speak there."""
    async with processes.two() as (writer, reader):
        await asked(redis, "PUBLISH", f"pnl:1:{SPACE}:commits", said)
        writer.put("key", b"1", 250)
        await writer.flush()

        assert await found(reader, fetch=nothing) == (b"1", "fresh", "shared")


async def test_a_made_up_generation_costs_some_seconds_and_no_more(processes, redis, clock):
    """Whoever can write to the channel can keep rows from being found, until that generation has been silent."""
    async with processes.two() as (writer, reader):
        await asked(redis, "PUBLISH", f"pnl:1:{SPACE}:commits", b"\xff" * 8)
        writer.put("key", b"1", 250)
        await writer.flush()
        await until(lambda: reader.shared._generation == b"\xff" * 8)
        assert await found(reader, "key", local) == (b"local", "fresh", "store")

        clock.advance(seconds=BELIEVED_S)
        await heard(writer, reader)


# What happens while the server, or the way to it, is gone


async def test_without_a_server_the_local_path_goes_on_and_it_comes_back_by_itself(processes, redis):
    """Memory over the fetch; those who want to know are told why, and told again once it is back."""
    async with processes.two() as (writer, reader):
        await redis.kill()
        await until(lambda: writer.shared.trouble and reader.shared.trouble)
        writer.put("key", b"1", 250)
        await writer.flush()

        assert (await found(writer, fetch=nothing))[::2] == (b"1", "memory")
        assert await found(reader) == (b"local", "fresh", "store")
        assert processes.said == ["it cannot be reached"] * 2

        await redis.start()
        await until(lambda: not writer.shared.trouble and not reader.shared.trouble)
        await heard(writer, reader)
        writer.put("new", b"2", 250)
        await writer.flush()

        assert await found(reader, "new", nothing) == (b"2", "fresh", "shared")
        assert processes.said[2:] == [None] * 2


async def test_a_server_that_is_not_there_at_the_start_holds_nobody_up(processes, redis):
    """It is found once it is there."""
    await redis.kill()
    async with processes.one(writes=True) as cache:
        assert await found(cache) == (b"local", "fresh", "store")
        assert cache.shared.trouble == "it cannot be reached"
        await redis.start()
        await until(lambda: cache.shared.trouble is None)


async def test_a_server_that_hangs_is_a_miss_and_then_not_asked(processes, redis):
    """Nobody waits for it: not the fetch, and not the loop."""
    async with processes.one(writes=True) as cache:
        redis.signal(signal.SIGSTOP)

        assert await found(cache) == (b"local", "fresh", "store")
        cache.put("other", b"1", 10)
        await until(lambda: cache.shared.trouble)
        errors = cache.stats.shared.errors
        assert await found(cache, "another") == (b"local", "fresh", "store")

        assert cache.stats.shared.errors == errors
        redis.signal(signal.SIGCONT)
        await until(lambda: cache.shared.trouble is None)


async def test_what_may_have_missed_a_drop_is_not_believed(processes, redis):
    """The server was away when something was dropped, and still has it: neither process looks at it."""
    async with processes.two() as (writer, reader):
        writer.put("key", b"old", 250)
        await writer.flush()
        redis.signal(signal.SIGSTOP)
        writer.shared.tell()
        await until(lambda: writer.shared.trouble and reader.shared.trouble)
        writer.drop("key")
        redis.signal(signal.SIGCONT)
        await until(lambda: not writer.shared.trouble and not reader.shared.trouble)
        await heard(writer, reader)

        assert await asked(redis, "EXISTS", KEY) == 1
        assert await found(reader) == (b"local", "fresh", "store")
        assert await found(writer) == (b"local", "fresh", "store")


async def test_what_a_server_brings_back_from_its_disk_is_not_believed(processes, redis):
    """It may be from before the last drops; a restart between two words of the writer is noticed all the same."""
    async with processes.two() as (writer, reader):
        writer.put("key", b"old", 250)
        await writer.flush()
        await asked(redis, "SAVE")
        writer.drop("key")
        await writer.flush()
        before = writer.shared._generation
        await redis.kill()
        await redis.start()
        await until(lambda: writer.shared._generation not in (before, b""))
        await heard(writer, reader)

        assert await asked(redis, "EXISTS", KEY) == 1
        assert await found(reader) == (b"local", "fresh", "store")
        assert await found(writer) == (b"local", "fresh", "store")


async def test_nothing_is_believed_of_a_writer_that_fell_silent(processes, clock):
    """It may have been killed with a drop in its hands, or be cut off from the server."""
    async with processes.one(writes=False) as reader:
        async with processes.one(writes=True) as writer:
            await heard(writer, reader)
            writer.put("key", b"1", 250)
        assert (await found(reader, fetch=nothing))[2] == "shared"
        clock.advance(seconds=BELIEVED_S)

        assert await found(reader) == (b"local", "fresh", "store")


async def test_the_next_writer_begins_anew(processes, redis):
    """What the one before it left is not believed: nobody knows what was recorded between the two."""
    async with processes.one(writes=True) as first:
        first.put("key", b"old", 250)
    async with processes.two() as (second, reader):
        assert await asked(redis, "EXISTS", KEY) == 1
        assert await found(reader) == await found(second) == (b"local", "fresh", "store")


async def test_those_who_wait_hear_at_once(processes):
    """Well before they would look by themselves; and no later than that."""
    async with processes.two() as (writer, reader):
        await reader.shared.heard(60)  # what was said at the beginning
        waiting = asyncio.create_task(reader.shared.heard(60))
        await asyncio.sleep(0)
        writer.shared.tell()

        await asyncio.wait_for(waiting, 60)
        await reader.shared.heard(0.01)


# Keys, and servers that say no


async def trouble_of(redis, clock, url):
    async with Processes(redis, clock).one(writes=True, url=SecretStr(url)) as cache:
        cache.put("key", b"1", 250)
        await until(lambda: cache.shared.trouble)
        return cache.shared.trouble


async def test_a_password_is_asked_for_and_appears_nowhere(tmp_path_factory, clock, caplog):
    """Neither in what is said nor in any log; the right one is let in."""
    caplog.set_level(logging.DEBUG)
    redis = await started(tmp_path_factory.mktemp("redis"), requirepass="right")
    refusal = "it refuses the user or the password"
    try:
        assert await trouble_of(redis, clock, f"unix://:{CANARY}@{redis.socket}") == refusal
        assert await trouble_of(redis, clock, f"unix://{redis.socket}") == refusal
        async with Processes(redis, clock).one(writes=True) as cache:
            assert cache.shared.trouble is None
    finally:
        await redis.kill()
    assert "is gone" in caplog.text
    assert CANARY not in caplog.text


async def test_a_server_that_is_full_says_what_to_do(redis, clock):
    """One that makes no room is of no use."""
    await asked(redis, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    await asked(redis, "CONFIG", "SET", "maxmemory", "1")

    assert "set its maxmemory-policy to allkeys-lru" in await trouble_of(redis, clock, redis.url.get_secret_value())


def certificate(folder):
    """A certificate for this machine that nobody knows, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "here.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + private)
    return path


@asynccontextmanager
async def with_tls(redis, pem):
    """A TLS front of the server on loopback; yields its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)

    async def pass_on(source, sink):
        while some := await source.read(1 << 16):
            sink.write(some)
        sink.close()

    async def serve(reader, writer):
        back, forth = await asyncio.open_unix_connection(redis.socket)
        await asyncio.gather(pass_on(reader, forth), pass_on(back, writer), return_exceptions=True)

    front = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield front.sockets[0].getsockname()[1]
    front.close()


async def test_tls_is_used_and_an_unknown_certificate_refused(processes, redis, tmp_path):
    """`ssl_ca_certs` names who is to be trusted besides those that the system trusts."""
    pem = certificate(tmp_path)
    async with with_tls(redis, pem) as port:
        address = f"rediss://127.0.0.1:{port}/0"
        async with processes.one(writes=True, url=SecretStr(address)) as cache:
            await until(lambda: cache.shared.trouble == "its certificate is not to be trusted")
        async with processes.one(writes=True, url=SecretStr(f"{address}?ssl_ca_certs={pem}")) as cache:
            async with asyncio.timeout(20):
                while not await asked(redis, "EXISTS", KEY):  # a busy machine may take it for gone meanwhile
                    cache.put("key", b"1", 250)
                    await cache.flush()


def test_what_nobody_foresaw_is_told_by_its_kind_alone():
    """An error's own text may hold an address."""
    assert in_words(LookupError(CANARY)) == "LookupError"
