"""Settings come from the environment, else `pnl.toml`, else the default; a bad one is named and never shown."""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pydantic import SecretStr

from pnl.config import is_loopback, load_settings, others_read, private_folder
from pnl.errors import ConfigError
from pnl.sources import open_sources
from pnl.sources.kalshi import load_private_key

CANARY = "canary-4711"
REAL_KALSHI = "https://external-api.kalshi.com/trade-api/v2"
OWN_KALSHI = "http://127.0.0.1:8080/trade-api/v2"


def write_key(path, key, *, mode=0o600, password=None):
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    encryption = serialization.BestAvailableEncryption(password) if password else plain
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    path.chmod(mode)
    return path


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(monkeypatch):
    """One order for every setting, so that a container can override a folder's `pnl.toml`."""
    Path("pnl.toml").write_text('timezone = "Europe/Berlin"\nkalshi_mark = "bid"\npoll_s = 7\n')
    monkeypatch.setenv("PNL_TIMEZONE", "Asia/Tokyo")

    settings = load_settings(poll_s=3)

    assert settings.timezone == "Asia/Tokyo"
    assert settings.kalshi_mark == "bid"
    assert settings.poll_s == 3
    assert settings.kalshi_url == REAL_KALSHI


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    """`PNL_JOHN_URL=` in an env file means that there is none."""
    monkeypatch.setenv("PNL_JOHN_URL", "")
    monkeypatch.setenv("PNL_TIMEZONE", "")

    settings = load_settings()

    assert not settings.has_source
    assert settings.timezone == "America/New_York"


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("PNL_TIMEZONE", CANARY, "should be a time zone such as America/New_York"),
        ("PNL_TIMEZONE", f"../{CANARY}", "should be a time zone such as America/New_York"),
        ("PNL_DAILY_LOSS_LIMIT", "-20", "should be greater than 0"),
        ("PNL_DAILY_LOSS_LIMIT", "nan", "should be a finite number"),
        ("PNL_COST_BUDGET", CANARY, "should be a valid decimal"),
        ("PNL_ALERT_HOLD_S", "-1", "should be greater than or equal to 0"),
        ("PNL_METRICS_PORT", CANARY, "should be a valid integer"),
        ("PNL_METRICS_PORT", "65536", "should be less than or equal to 65535"),
        ("PNL_SINCE", CANARY, "should be a valid datetime"),
        ("PNL_POLL_S", CANARY, "should be a valid number"),
        ("PNL_POLL_S", "0", "should be greater than or equal to 0.1"),
        ("PNL_KALSHI_POLL_S", "nan", "should be"),
        ("PNL_KALSHI_MARK", CANARY, "should be 'mid' or 'bid'"),
        ("PNL_STORE_SYNCHRONOUS", CANARY, "should be 'FULL' or 'NORMAL'"),
        ("PNL_COMMIT_ROWS", "0", "should be greater than or equal to 1"),
        ("PNL_KALSHI_URL", CANARY, "should be an address such as https://host/path"),
        ("PNL_KALSHI_URL", f"ftp://{CANARY}/trade-api/v2", "should be an address such as https://host/path"),
        ("PNL_KALSHI_URL", f"https://{CANARY}", "should end with /trade-api/v2"),
        ("PNL_KALSHI_URL", f"http://{CANARY}/trade-api/v2", "should start with https://"),
        ("PNL_KALSHI_URL", f"http://127.0.0.1.{CANARY}/trade-api/v2", "should start with https://"),
        ("PNL_KALSHI_URL", f"https://me:{CANARY}@host/trade-api/v2", "should not hold a user name or password"),
        ("PNL_ANTHROPIC_URL", f"https://[{CANARY}]", "should be an address such as https://host/path"),
        ("PNL_ANTHROPIC_URL", f"https://host:{CANARY}", "should be an address such as https://host/path"),
        ("PNL_ANTHROPIC_ADMIN_KEY", f"{CANARY}\nX-Other: 1", "should be one word of plain letters"),
        ("PNL_JOHN_TOKEN", f"{CANARY} 2", "should be one word of plain letters"),
        ("PNL_KALSHI_KEY_ID", f"{CANARY}é", "should be one word of plain letters"),
        ("PNL_CACHE_URL", CANARY, "should be an address such as redis://user:password@host:6379/0"),
        ("PNL_CACHE_URL", f"http://:{CANARY}@host", "should be an address such as redis://"),
        ("PNL_CACHE_URL", f"redis://:{CANARY}@", "should be an address such as redis://"),
        ("PNL_CACHE_URL", f"redis://:{CANARY}@host:no/0", "should be an address such as redis://"),
        ("PNL_CACHE_URL", f"redis://:{CANARY}@host/first", "should be an address such as redis://"),
        ("PNL_CACHE_URL", f"redis://:{CANARY}@host?db=first", "should be an address such as redis://"),
        ("PNL_CACHE_URL", f"rediss://:{CANARY}@host?ssl_cert_reqs=none", "should be an address such as redis://"),
        ("PNL_CACHE_URL", f"redis://:{CANARY}@host?ssl_ca_certs=here.pem", "should be an address such as redis://"),
        ("PNL_CACHE_URL", "unix://?db=0", "should be an address such as redis://"),
    ],
)
def test_a_bad_setting_is_named_with_what_it_should_be_and_never_shown(monkeypatch, name, value, advice):
    """The person sees which setting and what to write; the value may be a secret in the wrong place."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError) as failure:
        load_settings()

    assert str(failure.value).startswith(f"{name}: {advice}")
    assert CANARY not in str(failure.value)
    assert "\n" not in str(failure.value)
    assert failure.value.__cause__ is None  # a traceback would print the value
    assert failure.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        *("redis://host", "redis://me:p%40ss@host:6379/0", "redis://[::1]:6379/15?db=3"),
        *("rediss://host/0?ssl_ca_certs=here.pem", "unix:///run/redis.sock?db=1", "unix://me:pass@/run/redis.sock"),
    ],
)
def test_the_address_of_a_shared_cache_is_taken_as_the_library_takes_it(url):
    """And is a secret, as it may hold a password."""
    settings = load_settings(cache_url=url)

    assert settings.cache_url.get_secret_value() == url
    assert url not in repr(settings)


def test_every_bad_setting_is_named_in_one_error(monkeypatch):
    """Two mistakes cost one start and not two."""
    monkeypatch.setenv("PNL_TIMEZONE", "Mars/Olympus")
    monkeypatch.setenv("PNL_POLL_S", "often")

    with pytest.raises(ConfigError, match=r"PNL_TIMEZONE: .*; PNL_POLL_S: "):
        load_settings()


@pytest.mark.parametrize("content", [f'timezone = "{CANARY}', f"john_token = {CANARY}", "\x00", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(content):
    """The text says the file and the place in it, not what stands there."""
    Path("pnl.toml").write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(ConfigError, match=r"^pnl\.toml cannot be read as TOML: ") as failure:
        load_settings()

    assert CANARY not in str(failure.value)


def test_secrets_are_in_no_repr(monkeypatch):
    """Settings end up in logs and tracebacks."""
    monkeypatch.setenv("PNL_ANTHROPIC_ADMIN_KEY", CANARY)
    monkeypatch.setenv("PNL_JOHN_TOKEN", CANARY)
    monkeypatch.setenv("PNL_OPENAI_KEY", CANARY)

    settings = load_settings()

    assert CANARY not in f"{settings!r} {settings} {settings.model_dump_json()} {settings.plugin('openai')}"
    assert settings.anthropic_admin_key.get_secret_value() == CANARY
    assert settings.plugin("openai") == {"key": SecretStr(CANARY)}


@pytest.mark.parametrize("url", [OWN_KALSHI, "http://localhost:1/trade-api/v2", "http://[::1]:1/trade-api/v2/"])
def test_plain_http_is_for_this_machine_only(url):
    """Keys travel with every request; a last slash is as good as none."""
    settings = load_settings(kalshi_url=url)

    assert settings.kalshi_url == url.rstrip("/")
    assert is_loopback(settings.kalshi_url)


def test_a_time_without_a_zone_is_utc(monkeypatch):
    """`PNL_SINCE=2026-01-01` means the same on every machine."""
    monkeypatch.setenv("PNL_SINCE", "2026-01-01")

    assert load_settings().since == datetime(2026, 1, 1, tzinfo=UTC)


def test_simulated_and_real_sources_are_refused_together():
    """Nobody's money and somebody's never meet in one total."""
    mixed = load_settings(kalshi_key_id="k", kalshi_url=OWN_KALSHI, anthropic_admin_key="a")

    with pytest.raises(ConfigError, match="PNL_KALSHI_URL and PNL_ANTHROPIC_URL: one is simulated"):
        _ = mixed.is_simulated

    assert not load_settings(kalshi_key_id="k", anthropic_admin_key="a").is_simulated
    assert load_settings(anthropic_url="http://127.0.0.1:1", anthropic_admin_key="a").is_simulated
    assert not load_settings(kalshi_url=OWN_KALSHI, anthropic_admin_key="a").is_simulated


def test_a_private_key_of_either_type_is_read(tmp_path):
    """RSA and Ed25519 are what the venue gives out; the simulator's tests use the former."""
    path = write_key(tmp_path / "kalshi.pem", ed25519.Ed25519PrivateKey.generate())

    assert isinstance(load_private_key(path), ed25519.Ed25519PrivateKey)


def missing(path):
    return path


def a_folder(path):
    path.mkdir()
    return path


def open_to_others(path):
    return write_key(path, ed25519.Ed25519PrivateKey.generate(), mode=0o644)


def no_key(path):
    path.touch(mode=0o600)
    path.write_text(CANARY)
    return path


def another_kind(path):
    return write_key(path, ec.generate_private_key(ec.SECP256R1()))


def with_a_password(path):
    return write_key(path, ed25519.Ed25519PrivateKey.generate(), password=b"secret")


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (missing, r"cannot be read \(No such file or directory\); it should be the PEM file that Kalshi gave you"),
        (a_folder, r"cannot be read \(Is a directory\)"),
        (open_to_others, r"can be read by others \(mode 0644\); run: chmod 600 '.*kalshi\.pem'"),
        (no_key, "is not an RSA or Ed25519 private key in PEM form without a password"),
        (another_kind, "is not an RSA or Ed25519 private key"),
        (with_a_password, "is not an RSA or Ed25519 private key in PEM form without a password"),
    ],
)
def test_a_key_file_that_cannot_work_is_refused_in_one_line(tmp_path, make, advice):
    """Setting, path and remedy; nothing of what the file holds."""
    path = make(tmp_path / "kalshi.pem")

    with pytest.raises(ConfigError, match=f"^PNL_KALSHI_PRIVATE_KEY_PATH: .*kalshi.pem {advice}") as failure:
        load_private_key(path)

    assert CANARY not in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("given", "missing_name"),
    [
        ({"kalshi_key_id": CANARY}, "PNL_KALSHI_PRIVATE_KEY_PATH"),
        ({"kalshi_private_key_path": "kalshi.pem"}, "PNL_KALSHI_KEY_ID"),
    ],
)
async def test_half_a_kalshi_key_names_the_other_half(transport, given, missing_name):
    """A key is an id and a file."""
    with pytest.raises(ConfigError, match=f"^{missing_name} is not set; ") as failure:
        open_sources(load_settings(**given), transport)

    assert CANARY not in str(failure.value)


async def test_sources_that_are_not_set_are_left_out_and_named(transport, tmp_path):
    """Unknown is not zero: what is not configured is told apart from what is."""
    configured, others = open_sources(load_settings(john_url=str(tmp_path / "deals.csv"), poll_s=9), transport)

    assert [(source.name, source.poll_s) for source in configured] == [("john", 9)]
    assert list(others) == ["kalshi", "anthropic"]


async def test_a_bad_address_of_the_deals_is_named(transport):
    """It may be a file, so it is judged only when the source is made."""
    with pytest.raises(ConfigError, match=r"^PNL_JOHN_URL: should start with https://") as failure:
        open_sources(load_settings(john_url=f"http://{CANARY}/deals"), transport)

    assert CANARY not in str(failure.value)


def test_the_data_folder_is_made_for_its_owner_alone(tmp_path):
    """Mode 0700; a folder that is there already is used as it is."""
    path = tmp_path / "a" / "b"

    assert stat.S_IMODE(private_folder(path).stat().st_mode) == 0o700
    path.chmod(0o750)
    assert stat.S_IMODE(private_folder(path).stat().st_mode) == 0o750


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path):
    """For instance because a file stands in its place."""
    (tmp_path / "data").touch()

    with pytest.raises(ConfigError, match=r"^PNL_DATA_DIR: the folder .*data cannot be used"):
        private_folder(tmp_path / "data")


def test_a_home_folder_is_written_with_a_tilde(monkeypatch, tmp_path):
    """`~` means the same in `pnl.toml` as in a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))

    settings = load_settings(data_dir="~/pnl", kalshi_private_key_path="~/kalshi.pem")

    assert settings.data_dir == tmp_path / "pnl"
    assert settings.kalshi_private_key_path == tmp_path / "kalshi.pem"


def test_settings_cannot_be_changed_once_read():
    """Every part of the program sees the same ones."""
    settings = load_settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.timezone = "UTC"


def test_a_mistyped_setting_in_the_file_is_named(tmp_path, monkeypatch):
    """A setting that nobody reads would be believed to be set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pnl.toml").write_text('kalshi_key = "abc"\n')

    with pytest.raises(ConfigError, match="kalshi_key, which is no setting"):
        load_settings()


@pytest.mark.parametrize("host", ["external-api.demo.kalshi.co", "demo-api.kalshi.co"])
def test_kalshis_own_demo_is_play_money(host):
    """Its numbers never meet real ones."""
    demo = {"kalshi_url": f"https://{host}/trade-api/v2", "kalshi_key_id": "k"}

    assert load_settings(**demo).is_simulated
    with pytest.raises(ConfigError, match="must not meet"):
        _ = load_settings(**demo, anthropic_admin_key="a").is_simulated


@pytest.mark.parametrize(
    ("mode", "owner", "who", "expected"),
    [
        (0o100600, (1000, 1000), 1000, False),
        (0o100640, (1000, 1000), 1000, True),
        (0o100604, (1000, 1000), 1000, True),
        (0o100440, (0, 0), 61184, False),  # a credential of systemd, as its service sees it
        (0o100460, (0, 0), 61184, True),
        (0o100444, (0, 0), 61184, True),
        (0o100440, (0, 1000), 61184, True),
        (0o100440, (0, 0), 0, True),
    ],
)
def test_a_file_of_a_secret_is_for_its_owner_or_of_systemd(monkeypatch, mode, owner, who, expected):
    """Root's own group is root; its members are nobody else."""
    monkeypatch.setattr(os, "geteuid", lambda: who)

    assert others_read(os.stat_result((mode, 0, 0, 1, *owner, 9, 0, 0, 0))) is expected
