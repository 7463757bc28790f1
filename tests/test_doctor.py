"""The doctor against the real simulator: what it finds well, and what it says of each thing that is wrong."""

import re
import sqlite3
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr
from redis_here import asked
from test_store import EVERYTHING, NOW, record, snapshot

from pnl.config import NOTHING_SET, load_settings
from pnl.doctor import Mark, examine
from pnl.doctor.folder import disk_found
from pnl.doctor.parts import parts_found
from pnl.doctor.records import newest_found
from pnl.doctor.settings import without_query
from pnl.doctor.shared import way_found
from pnl.doctor.sources import clock_found, sources_found
from pnl.engine import Engine
from pnl.errors import SourceError
from pnl.records import Agreement
from pnl.schema import MIGRATIONS
from pnl.simulator import LivingMarket, Simulator
from pnl.store import FILE, Change, Store


@pytest.fixture
async def simulator():
    """The three APIs at the real time, which signatures hold."""
    async with Simulator(LivingMarket(days=2), limited=False) as simulator:
        yield simulator


@pytest.fixture
def configured(simulator, folder, monkeypatch):
    """Settings that lead to the simulator, from the environment; call it with what is different."""

    def configure(**others):
        for name, value in (simulator.settings | {"PNL_DATA_DIR": str(folder)} | others).items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return configure


async def found(settings, **options):
    return {finding.name: finding async for finding in examine(settings, **options)}


def failed(findings):
    return {finding.name for finding in findings.values() if finding.mark is Mark.FAILED}


async def test_each_source_is_tried_with_one_small_request_that_only_reads(simulator, configured):
    """And says in plain words what it heard, and how long it took."""
    findings = await found(configured())

    assert failed(findings) == set()
    assert "balance is $" in findings["kalshi"].said
    assert "exchange is open" in findings["kalshi"].said
    assert re.fullmatch(r"billed to \d{4}-\d\d-\d\d \(UTC\): \$[\d.]+ that day", findings["anthropic"].said)
    assert "deals on the first page" in findings["john"].said
    assert all(findings[name].took_ms > 0 for name in ("kalshi", "anthropic", "john"))
    assert simulator.requests == Counter(
        {
            "GET /trade-api/v2/portfolio/balance": 1,
            "GET /trade-api/v2/exchange/status": 1,
            "GET /v1/organizations/cost_report": 1,
            "GET /deals": 1,
        }
    )


async def test_the_key_is_named_by_its_kind_and_mode(configured):
    """Never by its content."""
    findings = await found(configured(), offline=True)

    assert findings["Kalshi's private key"].said.endswith("RSA, 2048 bits, mode 0600")
    assert findings["Anthropic's Admin key"].mark is Mark.OK


async def test_offline_nobody_is_asked(simulator, configured):
    """What lies here is looked at all the same."""
    findings = await found(configured(), offline=True)

    assert simulator.requests.total() == 0
    assert findings["kalshi"].mark is Mark.SKIPPED
    assert "disk" in findings or findings["folder"].mark is Mark.SKIPPED


def readable_by_others(simulator):
    simulator.private_key_path.chmod(0o644)
    return {}


def no_such_file(_simulator):
    return {"PNL_KALSHI_PRIVATE_KEY_PATH": "/nowhere/kalshi.pem"}


def of_another_kind(simulator):
    key = ec.generate_private_key(ec.SECP256R1())
    simulator.private_key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {}


@pytest.mark.parametrize(
    ("mistake", "advice"),
    [
        (readable_by_others, "chmod 600"),
        (no_such_file, "cannot be read (No such file or directory)"),
        (of_another_kind, "is not an RSA or Ed25519 private key"),
    ],
)
async def test_a_key_that_cannot_be_used_is_said_once_and_not_tried(simulator, configured, mistake, advice):
    """The other sources are."""
    findings = await found(configured(**mistake(simulator)))

    assert failed(findings) == {"Kalshi's private key"}
    assert advice in findings["Kalshi's private key"].said
    assert findings["kalshi"].said == "not asked until that is put right"
    assert findings["anthropic"].mark is findings["john"].mark is Mark.OK


@pytest.mark.parametrize(
    ("others", "name", "says"),
    [
        ({"PNL_KALSHI_KEY_ID": "unknown"}, "kalshi", "check PNL_KALSHI_KEY_ID"),
        ({"PNL_KALSHI_KEY_ID": ""}, "kalshi", "PNL_KALSHI_KEY_ID is not set"),
        ({"PNL_KALSHI_URL": "http://127.0.0.1:9/trade-api/v2"}, "kalshi", "cannot be reached (Connection refused)"),
        ({"PNL_ANTHROPIC_ADMIN_KEY": "sk-ant-admin01-no"}, "anthropic", "should be an Admin key"),
        ({"PNL_JOHN_TOKEN": "no"}, "john", "check PNL_JOHN_TOKEN"),
        ({"PNL_JOHN_URL": "/nowhere/deals.csv"}, "john", "cannot be read (No such file or directory)"),
    ],
)
async def test_a_source_that_refuses_or_is_not_there_is_named_with_what_to_check(configured, others, name, says):
    """Each failure is its own: the others are as they were."""
    findings = await found(configured(**others))

    assert failed(findings) == {name}
    assert says in findings[name].said


async def test_a_key_that_is_no_admin_key_is_pointed_out_before_anybody_is_asked(configured):
    """An ordinary key may not read costs."""
    findings = await found(configured(PNL_ANTHROPIC_ADMIN_KEY="sk-ant-api03-canary"), offline=True)

    key = findings["Anthropic's Admin key"]
    assert key.mark is Mark.WARNING
    assert "sk-ant-admin" in key.said
    assert "canary" not in f"{findings}"


async def test_what_is_not_set_up_is_left_out_and_says_what_to_set(configured):
    """It is no failure."""
    findings = await found(configured(PNL_JOHN_URL=""))

    assert failed(findings) == set()
    assert (findings["john"].mark, findings["john"].advice) == (Mark.SKIPPED, "set PNL_JOHN_URL")


@pytest.mark.parametrize(("off_s", "where"), [(60, "behind"), (-60, "ahead")])
async def test_a_clock_that_is_off_is_measured(folder, monkeypatch, off_s, where):
    """Against the time that the source tells, also where it refuses the signature for it."""
    there = timedelta(seconds=off_s)
    async with Simulator(LivingMarket(days=2), now=lambda: datetime.now(UTC) + there, limited=False) as off:
        for name, value in (off.settings | {"PNL_DATA_DIR": str(folder)}).items():
            monkeypatch.setenv(name, value)
        findings = await found(load_settings())

    assert "clock of this machine is off" in findings["kalshi"].said
    assert findings["kalshi's clock"].mark is Mark.FAILED
    assert findings["kalshi's clock"].said in {f"this machine's clock is {n} s {where}" for n in (59, 60, 61)}


@pytest.mark.parametrize(
    ("ahead_s", "mark"),
    [(0, Mark.OK), (2.9, Mark.OK), (-5, Mark.WARNING), (10, Mark.WARNING), (10.1, Mark.FAILED), (-3600, Mark.FAILED)],
)
def test_signatures_bear_ten_seconds(ahead_s, mark):
    """Less than a few seconds is what a clock that tells whole ones leaves open."""
    assert clock_found("kalshi", ahead_s).mark is mark


async def test_settings_tell_where_they_come_from_and_secrets_only_whether_they_are_set(configured, tmp_path):
    """The environment wins over the file, the file over the default."""
    (tmp_path / "pnl.toml").write_text('timezone = "UTC"\nraw_days = 40\njohn_token = "canary-1"\n')
    (tmp_path / "pnl.toml").chmod(0o600)

    findings = await found(configured(PNL_RAW_DAYS="50", PNL_JOHN_URL="https://deals/x?token=canary-2"), offline=True)

    told = {name: (findings[name].said, findings[name].origin) for name in findings if name.startswith("PNL_")}
    assert told["PNL_TIMEZONE"] == ("UTC", "pnl.toml")
    assert told["PNL_RAW_DAYS"] == ("50", "environment")
    assert told["PNL_COMMIT_MS"] == ("20", "default")
    assert findings["PNL_JOHN_TOKEN"].said == findings["PNL_KALSHI_KEY_ID"].said == "set"
    assert findings["PNL_PASSWORD"].said == "not set"
    assert findings["PNL_JOHN_URL"].said == "https://deals/x?…"
    assert "canary" not in f"{findings}"
    assert failed(findings) == set()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:canary@host:8443/x", "https://host:8443/x"),
        ("https://[canary", "set, and no address"),
        ("~/deals.csv", "~/deals.csv"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_secret(text, shown):
    """Neither a query nor a name in it."""
    assert without_query(text) == shown


async def test_a_secret_in_a_file_that_others_can_read_is_a_failure(configured, tmp_path):
    """With the command that puts it right."""
    (tmp_path / "pnl.toml").write_text('password = "long enough"\n')
    (tmp_path / "pnl.toml").chmod(0o644)

    findings = await found(configured(), offline=True)

    assert failed(findings) == {"pnl.toml"}
    assert findings["pnl.toml"].advice == "run: chmod 600 pnl.toml"


async def test_a_password_that_nobody_can_use_is_a_failure(configured, tmp_path):
    """Before the dashboard refuses to start for it."""
    (tmp_path / "password").write_text("long enough")
    (tmp_path / "password").chmod(0o644)

    findings = await found(configured(PNL_PASSWORD_FILE=str(tmp_path / "password")), offline=True)

    assert failed(findings) == {"password"}


async def test_real_and_simulated_sources_together_are_a_failure(configured):
    """Their numbers must not meet."""
    findings = await found(configured(PNL_ANTHROPIC_URL="https://api.anthropic.com"), offline=True)

    assert failed(findings) == {"numbers"}
    assert findings["records"].mark is Mark.SKIPPED


async def test_nothing_configured_says_what_to_set(folder, monkeypatch):
    """And that there is a demo."""
    monkeypatch.setenv("PNL_DATA_DIR", str(folder))

    findings = await found(load_settings())

    assert failed(findings) == {"sources"}
    assert findings["sources"].said == NOTHING_SET


async def test_what_is_recorded_is_counted_with_its_first_and_last_day(configured):
    """Each kind of record, the newest snapshot, and that the venue agrees."""
    settings = configured()
    async with Engine(settings) as engine:
        taken = await engine.sync()
        await engine.sync()

    findings = await found(settings)

    assert failed(findings) == set()
    assert findings["kalshi: fills"].said.startswith(f"{taken.trade_count:,} rows, 2")
    for name in ("kalshi: settlements", "anthropic: costs", "john: deals", "snapshots"):
        assert " rows, 2" in findings[name].said
    assert findings["folder"].said.endswith("mode 0700")
    assert findings["schema"].said == f"version {len(MIGRATIONS)}, the newest"
    assert findings["drift"].said == "$0.00; the venue's own figures: agrees"
    assert findings["bars"].took_ms > 0


async def test_a_row_that_was_set_aside_is_shown_with_its_reason(simulator, configured):
    """As the text that it is."""
    bad = {"id": "d-1", "amount": "NaN", "currency": "USD", "status": "won", "closed_date": "2026-11-01"}
    simulator.answers["/deals"] = lambda _request: web.json_response({"data": [bad], "next_cursor": ""})
    settings = configured()
    async with Engine(settings) as engine:
        await engine.sync()

    findings = await found(settings)

    assert findings["set aside"].mark is Mark.WARNING
    assert "deal d-1: amount" in findings["set aside"].said
    assert "0 deals on the first page; set aside 1, such as deal d-1" in findings["john"].said


async def test_a_folder_of_another_kind_of_numbers_is_a_failure(folder, configured):
    """Real ones lie there, and the sources are simulated."""
    async with Store(folder, kind="real") as store:
        await record(store, Change(snapshot(0, 1), "kalshi", EVERYTHING, NOW))

    findings = await found(configured(), offline=True)

    assert failed(findings) == {"records"}


async def test_files_that_others_can_read_or_that_are_damaged_are_failures(folder, configured):
    """Each by its name; a folder that others can enter is a warning."""
    async with Store(folder, kind="simulated"):
        pass
    (folder / "pnl.seal").chmod(0o644)
    (folder / "pnl-damaged-1.db").touch(0o600)
    folder.chmod(0o755)

    findings = await found(configured(), offline=True)

    assert failed(findings) == {"pnl.seal", "pnl-damaged-1.db"}
    assert "chmod 600" in findings["pnl.seal"].advice
    assert findings["folder"].mark is Mark.WARNING


@pytest.mark.parametrize(
    ("version", "mark", "says"),
    [(len(MIGRATIONS) + 1, Mark.FAILED, "newer version of pnl"), (1, Mark.WARNING, "version 1; this program writes")],
)
async def test_another_schema_is_told_and_left_as_it_is(folder, configured, version, mark, says):
    """A newer one cannot be read, an older one is migrated by the next start."""
    async with Store(folder, kind="simulated"):
        pass
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()

    findings = await found(configured(), offline=True)

    assert findings["schema"].mark is mark
    assert says in findings["schema"].said


@pytest.mark.parametrize(("free_bytes", "mark"), [(5 << 30, Mark.OK), (1 << 29, Mark.WARNING), (50 << 20, Mark.FAILED)])
def test_a_disk_without_room_is_a_failure(free_bytes, mark):
    """A gigabyte is enough for years."""
    assert disk_found(free_bytes).mark is mark


@pytest.mark.parametrize(
    ("agreement", "mark"),
    [
        (Agreement.AGREES, Mark.OK),
        (Agreement.SETTLING, Mark.OK),
        (Agreement.UNKNOWN, Mark.SKIPPED),
        (Agreement.UNEXPLAINED, Mark.WARNING),
        (Agreement.DRIFTS, Mark.FAILED),
    ],
)
def test_only_a_difference_that_stays_is_a_failure(agreement, mark):
    """A transfer is no mistake of the records."""
    newest = replace(snapshot(0, 1), agreement=agreement, drift_usd=Decimal("-1.25"))

    _age, drift = newest_found(newest, newest.taken_at)

    assert drift.mark is mark
    assert ("-$1.25" in drift.said) is (agreement is not Agreement.UNKNOWN)


class Plain:
    """A third party's source, which cannot be tried."""

    name, origin, poll_s = "plain", "plain", 1.0

    @classmethod
    def from_settings(cls, _settings, _transport):
        return cls()


class Failing(Plain):
    async def check(self):
        raise SourceError("plain: nobody is there")


@pytest.mark.parametrize(("kind", "mark"), [(Plain, Mark.SKIPPED), (Failing, Mark.FAILED)])
async def test_a_third_partys_source_is_tried_if_it_can_be(folder, monkeypatch, kind, mark):
    """One that does not know how is listed."""
    monkeypatch.setattr("pnl.doctor.sources.source_classes", lambda: {"plain": kind})

    [finding] = [each async for each in sources_found(load_settings(data_dir=folder), offline=False, known=())]

    assert finding.mark is mark


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_the_doctor_says_whether_alerts_can_be_sent_and_never_where_to():
    """An address holds its own key; one that cannot work is not as it should be."""
    good, bad = "json://127.0.0.1:9/canary-4711", "nonsense://canary-4711"

    found = [list(parts_found(load_settings(notify_urls=urls))) for urls in (good, f"{good}, {bad}")]

    assert [[(each.said, each.mark) for each in part if each.name == "notifications"] for part in found] == [
        [("alerts go to 1 target(s)", Mark.OK)],
        [("PNL_NOTIFY_URLS: target 2 is no address that Apprise understands", Mark.FAILED)],
    ]
    assert "canary-4711" not in str(found)


def of_shared(findings):
    return {finding.name: finding for finding in findings.values() if finding.group == "Shared cache"}


async def test_a_shared_cache_is_tried_and_told_how_to_make_room(configured, redis):
    """As it comes it may take all memory, and then refuses what is new."""
    findings = of_shared(await found(configured(PNL_CACHE_URL=redis.url.get_secret_value())))

    assert findings["server"].mark is Mark.OK
    assert findings["server"].took_ms > 0
    assert findings["maxmemory"].mark is findings["maxmemory-policy"].mark is Mark.WARNING
    assert "CONFIG SET maxmemory 100mb" in findings["maxmemory"].advice
    assert "CONFIG SET maxmemory-policy allkeys-lru" in findings["maxmemory-policy"].advice


async def test_a_shared_cache_that_makes_room_is_well(configured, redis):
    """With any policy that may let go of all keys."""
    await asked(redis, "CONFIG", "SET", "maxmemory", "100mb")
    await asked(redis, "CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")

    findings = of_shared(await found(configured(PNL_CACHE_URL=redis.url.get_secret_value())))

    assert {finding.mark for finding in findings.values()} == {Mark.OK}
    assert findings["maxmemory"].said == "105 MB"


async def test_a_shared_cache_that_cannot_be_reached_is_named_without_its_address(configured, redis):
    """The address may hold a password; offline nobody is asked."""
    await redis.kill()
    settings = configured(PNL_CACHE_URL=f"unix://me:canary@{redis.socket}")

    findings = await found(settings)

    assert of_shared(findings)["server"].mark is Mark.FAILED
    assert of_shared(findings)["server"].said == "it cannot be reached"
    assert findings["PNL_CACHE_URL"].said == "set"
    assert "canary" not in str(findings)
    assert of_shared(await found(settings, offline=True))["server"].mark is Mark.SKIPPED
    assert not of_shared(await found(configured(PNL_CACHE_URL="")))


@pytest.mark.parametrize(
    ("url", "is_warned"),
    [("redis://:key@elsewhere/0", True), ("rediss://:key@elsewhere/0", False), ("redis://127.0.0.1/0", False)],
)
def test_a_password_that_travels_in_clear_is_warned_of(url, is_warned):
    """Only what stays on this machine may go without TLS."""
    assert (way_found(SecretStr(url)) is not None) is is_warned
