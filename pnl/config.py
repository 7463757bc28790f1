"""Settings: from the environment, else `pnl.toml`, else the default; the only reader of the environment."""

import os
import re
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    Field,
    IPvAnyAddress,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pnl.errors import ConfigError

TOML_FILE = "pnl.toml"
KALSHI_PATH = "/trade-api/v2"
CRON_FIELDS = 5
DATABASE_OPTIONS = frozenset(
    {
        "host",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "channel_binding",
        "connect_timeout",
        "target_session_attrs",
    }
)
ONE_WORD = re.compile(r"[!-~]+")
NOTHING_SET = (
    "no source is configured. Set one or more (the README tells how):\n"
    "  PNL_KALSHI_KEY_ID with PNL_KALSHI_PRIVATE_KEY_PATH, PNL_ANTHROPIC_ADMIN_KEY,\n"
    "  PNL_JOHN_URL. Or look around first: `panel serve app/` shows a demo."
)
TARGET = re.compile(r"[a-z0-9]+://[^\s]+", re.IGNORECASE)
BETWEEN_TARGETS = re.compile(r"[\s,]+(?=[a-z0-9]+://)", re.IGNORECASE)  # commas may stand inside one too


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_kalshi_demo(url: str) -> bool:
    """Whether an address is Kalshi's own demo, which trades play money."""
    return f".{urlsplit(url).hostname or ''}".endswith((".demo.kalshi.co", ".demo-api.kalshi.co"))


def http_url(url: str) -> str:
    """An address that keys may be sent to, without its last slash.

    Raises:
        ValueError: It is none; says what it should be.
    """
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # its text would show the value
        is_whole = False
    if not is_whole:
        raise ValueError("should be an address such as https://host/path")
    if parts.scheme == "http" and not is_loopback(url):
        raise ValueError(
            "should start with https:// (keys travel with every request; plain http is only for this machine)"
        )
    if parts.username or parts.password:
        raise ValueError("should not hold a user name or password")
    return url.rstrip("/")


def cache_server(url: SecretStr) -> SecretStr:
    """The address of a Redis or Valkey server; it may hold a password, so it is a secret.

    Raises:
        ValueError: It is none; says what it should be.
    """
    if not _is_cache_server(url.get_secret_value()):
        raise ValueError(
            "should be an address such as redis://user:password@host:6379/0, rediss://host/0 or unix:///path?db=0"
        )
    return url


def _is_cache_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        has_port = parts.port != 0
    except ValueError:
        return False
    known = {"db"} | ({"ssl_ca_certs"} if parts.scheme == "rediss" else set())  # no way to trust everybody
    if not options.keys() <= known or not options.get("db", "0").isdecimal():
        return False
    if parts.scheme == "unix":
        return bool(parts.path.strip("/"))
    is_database = re.fullmatch(r"/?\d*", parts.path) is not None
    return parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and has_port and is_database


def database_url(url: SecretStr) -> SecretStr:
    """The address of a PostgreSQL database.

    Raises:
        ValueError: It is none, or a letter in it has to be written otherwise; never shows any of it.
    """
    try:
        parts = urlsplit(url.get_secret_value())
        known = set(parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))) <= DATABASE_OPTIONS
        is_whole = parts.scheme in {"postgresql", "postgres"} and parts.username and parts.port != 0
    except ValueError:  # its text would show the value
        known = is_whole = False
    if (
        not is_whole
        or not re.fullmatch(r"/[^/@]+", parts.path)
        or parts.fragment
        or re.search(r"[\s\0]", url.get_secret_value())
    ):
        raise ValueError(
            "should be an address such as postgresql://user:password@host/database; "
            "in the password / is written as %2F, @ as %40, # as %23, ? as %3F, : as %3A and % as %25"
        )
    if not known:
        raise ValueError(f"should have nothing behind the ? but {', '.join(sorted(DATABASE_OPTIONS))}")
    return url


HttpUrl = Annotated[str, AfterValidator(http_url)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(database_url)]
CacheUrl = Annotated[SecretStr, AfterValidator(cache_server)]
Origin = Literal["environment", "pnl.toml", "default"]
PollSeconds = Annotated[float | None, Field(ge=0.1, le=86_400)]


class Role(StrEnum):
    """Who somebody is to the dashboard: an owner does everything, a viewer sees the numbers and changes nothing."""

    OWNER = "owner"
    VIEWER = "viewer"


class Settings(BaseSettings):
    """What a person can set. Field `data_dir` is `PNL_DATA_DIR` in the environment and `data_dir` in `pnl.toml`."""

    model_config = SettingsConfigDict(
        env_prefix="PNL_", toml_file=TOML_FILE, extra="ignore", frozen=True, env_ignore_empty=True
    )

    data_dir: Path = Field(
        default_factory=lambda: user_data_path("pnl"),
        description="Folder that holds everything recorded; made with mode 0700. The demo uses its subfolder `demo`.",
    )
    timezone: str = Field("America/New_York", description="Reporting time zone: where a day begins.")
    since: datetime | None = Field(
        None, description="Oldest instant to read (ISO 8601). Default: all trading and deals, 365 days of costs."
    )
    poll_s: PollSeconds = Field(None, description="Seconds between two polls of every source.")

    kalshi_url: HttpUrl = Field(
        f"https://external-api.kalshi.com{KALSHI_PATH}", description="Kalshi's REST base, with `/trade-api/v2`."
    )
    kalshi_key_id: str | None = Field(None, description="Kalshi API key id; a read-only key is enough.")
    kalshi_private_key_path: Path | None = Field(
        None, description="PEM file of that key (RSA or Ed25519), readable by you alone (mode 0600)."
    )
    kalshi_mark: Literal["mid", "bid"] = Field(
        "mid", description="Price that values open positions: middle of the book, or what they could be sold for."
    )
    kalshi_poll_s: PollSeconds = Field(None, description="Seconds between two polls of Kalshi; 2 unless set.")

    anthropic_url: HttpUrl = Field("https://api.anthropic.com", description="Anthropic's scheme and host.")
    anthropic_admin_key: SecretStr | None = Field(None, description="Anthropic Admin API key (`sk-ant-admin…`).")
    anthropic_poll_s: PollSeconds = Field(None, description="Seconds between two polls of Anthropic; 60 unless set.")

    john_url: str | None = Field(
        None, description="Revenue: a deals endpoint's whole address, Stripe's base address, or a CSV file's path."
    )
    john_token: SecretStr | None = Field(None, description="Bearer token of the deals endpoint, or Stripe secret key.")
    john_poll_s: PollSeconds = Field(None, description="Seconds between two polls of revenue; 30 unless set.")

    daily_loss_limit: Decimal | None = Field(
        None,
        gt=0,
        max_digits=15,
        description="US dollars, positive: an alert when today's realized loss reaches it, fees and costs included.",
    )
    cost_budget: Decimal | None = Field(
        None,
        gt=0,
        max_digits=15,
        description="US dollars for a month's AI cost, by UTC's calendar: an alert when it is spent.",
    )
    alert_hold_s: float = Field(
        120, ge=0, le=86_400, description="Seconds for which a source is down, or figures drift, before it is an alert."
    )
    notify_urls: SecretStr | None = Field(
        None,
        description="Where alerts are sent to: Apprise's addresses, separated by commas or spaces (extra `notify`).",
    )

    breaker_failures: int = Field(
        3, ge=1, le=100, description="Failures of a source in a row; after one more it is left alone for a while."
    )
    breaker_s: float = Field(
        60, ge=1, le=3600, description="Seconds for which it is left alone; then one request tries whether it is back."
    )

    store_url: DatabaseUrl | None = Field(
        None,
        description="PostgreSQL database for all that is recorded, `postgresql://user:password@host/database` (extra "
        "`postgres`); unless set it is SQLite in the data folder.",
    )
    store_read_url: DatabaseUrl | None = Field(
        None, description="A read replica of that database, which the history is read from instead."
    )
    store_synchronous: Literal["FULL", "NORMAL"] = Field(
        "FULL",
        description="Durability. NORMAL saves a millisecond per commit and may lose the last ones at a power "
        "cut (421 of 500 simulated cuts lost some; FULL lost none).",
    )
    cache_url: CacheUrl | None = Field(
        None,
        description="Redis or Valkey, which the processes of a data folder share as a cache and to hear of commits: "
        "`rediss://user:password@host:6379/0` (extra `redis`). Unless set the cache is on disk.",
    )
    commit_rows: int = Field(100, ge=1, le=10_000, description="Snapshots written in one commit at most.")
    raw_days: int = Field(
        30,
        ge=3,
        le=36_500,
        description="Days for which each single snapshot is kept in the store; older months go into Parquet files "
        "beside it. Minutes are kept for ever.",
    )
    commit_ms: int = Field(
        20, ge=0, le=60_000, description="Least milliseconds between two commits; the first is made at once."
    )
    flush_ms: int = Field(
        100, ge=0, le=60_000, description="Least milliseconds between two messages to a page; the first goes at once."
    )
    flush_changes: int = Field(
        100, ge=1, le=10_000, description="So many changes go to the pages together without waiting for that."
    )
    max_sessions: int = Field(
        1000, ge=1, le=100_000, description="Pages that may be open; more are asked to come back, and none gets slower."
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Port that answers `/metrics`, `/readyz` and `/healthz` without a password; 0: none. "
        "Unless set it is 9464 under `panel serve`, where no password is asked for; else the dashboard's own port has "
        "them alone.",
    )
    metrics_address: IPvAnyAddress = Field(
        IPv4Address("127.0.0.1"),
        description="Address of that port. Another one is for a network that a scraper alone reaches: nobody is asked "
        "there who they are.",
    )
    allowed_hosts: str | None = Field(
        None, description="Names or addresses that the dashboard goes by besides localhost, separated by commas."
    )
    password: SecretStr | None = Field(None, description="Password that the dashboard asks for, 8 letters or more.")
    password_file: Path | None = Field(
        None, description="File that holds this password, readable by you alone (mode 0600)."
    )
    viewer_password: SecretStr | None = Field(
        None,
        description="A second password, for viewers: they see the numbers, no record or file, and change nothing.",
    )
    viewer_password_file: Path | None = Field(
        None, description="File that holds the viewers' password, readable by you alone (mode 0600)."
    )
    cookie_secret: SecretStr | None = Field(
        None, description="Signs the login's cookies. Unless set it is new at each start: everybody logs in anew."
    )
    behind_proxy: bool = Field(
        default=False,
        description="A proxy in front of the dashboard asks who visitors are. Other machines may then reach it "
        "without a password, and the proxy is believed when it says who asks (`X-Forwarded-For`, `X-Forwarded-Proto`).",
    )

    report_cron: str | None = Field(
        None,
        description="When the running server writes a report by itself: five fields of cron in `PNL_TIMEZONE`, such as "
        "`0 7 * * 1`. One that was missed is written at the next start.",
    )
    report_range: str = Field(
        "7d",
        description="Period of these reports, as `pnl report --range` takes it: `day-1`, `7d`, `week-1`, `month-1` …",
    )
    report_dir: Path | None = Field(
        None, description="Folder for these reports; `reports` in the data folder unless set. Files have mode 0600."
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("should be a time zone such as America/New_York") from error
        return name

    @field_validator("since")
    @classmethod
    def _aware(cls, since: datetime | None) -> datetime | None:
        return since.replace(tzinfo=UTC) if since is not None and since.tzinfo is None else since

    @field_validator("kalshi_url")
    @classmethod
    def _with_trade_api(cls, url: str) -> str:
        if not url.endswith(KALSHI_PATH):
            raise ValueError(f"should end with {KALSHI_PATH}")
        return url

    @field_validator("kalshi_key_id", "anthropic_admin_key", "john_token")
    @classmethod
    def _one_word(cls, key: str | SecretStr | None) -> str | SecretStr | None:
        word = key.get_secret_value() if isinstance(key, SecretStr) else key
        if word is not None and not ONE_WORD.fullmatch(word):
            raise ValueError("should be one word of plain letters, without spaces or line ends (it becomes a header)")
        return key

    @field_validator("notify_urls")
    @classmethod
    def _targets(cls, urls: SecretStr | None) -> SecretStr | None:
        if urls is not None and not all(map(TARGET.fullmatch, _split(urls))):
            raise ValueError("should be addresses such as json://host/path, separated by commas or spaces")
        return urls

    @field_validator("report_cron")
    @classmethod
    def _five_fields(cls, cron: str | None) -> str | None:
        if cron is None:
            return None
        from croniter import croniter  # noqa: PLC0415 - its import starts another program, so only for a schedule

        if len(cron.split()) != CRON_FIELDS or not croniter.is_valid(cron):
            raise ValueError("should be five fields of cron, such as 0 7 * * 1 (Mondays at 07:00)")
        return cron

    @field_validator("data_dir", "kalshi_private_key_path", "password_file", "viewer_password_file", "report_dir")
    @classmethod
    def _expanded(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before `pnl.toml` before the defaults."""
        del dotenv_settings, file_secret_settings
        toml = TomlConfigSettingsSource(settings_cls)
        if unknown := sorted(toml.toml_data.keys() - settings_cls.model_fields.keys()):
            raise ConfigError(f"{TOML_FILE} holds {', '.join(unknown)}, which is no setting; the README lists them")
        return init_settings, env_settings, toml

    @model_validator(mode="after")
    def _replica_of_something(self) -> Self:
        if self.store_read_url is not None and self.store_url is None:
            raise ConfigError("PNL_STORE_READ_URL: it is a replica of PNL_STORE_URL, which is not set")
        return self

    @cached_property
    def zone(self) -> ZoneInfo:
        """The reporting time zone."""
        return ZoneInfo(self.timezone)

    @property
    def hosts(self) -> frozenset[str]:
        """`allowed_hosts`, one by one and in lower case."""
        return frozenset(host.strip().lower() for host in (self.allowed_hosts or "").split(",")) - {""}

    @property
    def notify_targets(self) -> tuple[SecretStr, ...]:
        """`notify_urls`, one by one; an address holds its own key, so none is ever shown."""
        return () if self.notify_urls is None else tuple(map(SecretStr, _split(self.notify_urls)))

    @property
    def has_source(self) -> bool:
        """Whether anything is configured; if not, the dashboard shows the demo."""
        return bool(self.kalshi_key_id or self.kalshi_private_key_path or self.anthropic_admin_key or self.john_url)

    @property
    def is_simulated(self) -> bool:
        """Whether trading or costs come from this machine or from Kalshi's demo, so that they are nobody's money.

        Raises:
            ConfigError: One of the two is simulated and the other is real; they never meet in one total.
        """
        kalshi = is_loopback(self.kalshi_url) or is_kalshi_demo(self.kalshi_url) if self.kalshi_key_id else None
        anthropic = is_loopback(self.anthropic_url) if self.anthropic_admin_key else None
        if {kalshi, anthropic} >= {True, False}:
            msg = (
                "PNL_KALSHI_URL and PNL_ANTHROPIC_URL: one is simulated (here, or a demo), the other is real. "
                "Their numbers must not meet in one total: set both to real addresses, or both to the simulator's."
            )
            raise ConfigError(msg)
        return bool(kalshi or anthropic)

    def plugin(self, name: str) -> dict[str, SecretStr]:
        """Settings of a third party's source: every `PNL_<NAME>_…` of the environment, by its lower-case rest."""
        prefix = f"PNL_{name.upper()}_"
        mine = {key: value for key, value in os.environ.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix).lower(): SecretStr(value) for key, value in mine.items()}


def load_settings(**given: Any) -> Settings:
    """Read the settings.

    Args:
        given: Values that win over the environment, by field name.

    Raises:
        ConfigError: A value makes no sense; names each such setting, what it should be, and never its value.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = [f"PNL_{str(e['loc'][0]).upper()}: {_in_words(e['msg'])}" for e in error.errors()]
        raise ConfigError("; ".join(lines)) from None  # the cause would print the value
    except ValueError as error:  # tomllib's own
        raise ConfigError(f"{TOML_FILE} cannot be read as TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{TOML_FILE} cannot be read ({error.strerror})") from None


def origins() -> dict[str, Origin]:
    """Where `load_settings()` finds each setting, by field name; it has to have found them all good."""
    environment, toml = EnvSettingsSource(Settings)(), TomlConfigSettingsSource(Settings).toml_data
    of_file: dict[str, Origin] = dict.fromkeys(toml, "pnl.toml")
    of_environment: dict[str, Origin] = dict.fromkeys(environment, "environment")
    default: dict[str, Origin] = dict.fromkeys(Settings.model_fields, "default")
    return default | of_file | of_environment


def inherited_by_children() -> dict[str, str]:
    """The environment without settings of ours: a process that needs some is told, and secrets do not spread."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PNL_")}


def _split(urls: SecretStr) -> list[str]:
    return BETWEEN_TARGETS.split(urls.get_secret_value().strip(" \t\r\n,"))


def _in_words(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")


def others_read(file: os.stat_result) -> bool:
    """Whether others than the owner can read or write a file.

    Root's own group counts as root: systemd hands a service its credentials in it, with an entry for that service.
    """
    is_of_root = os.geteuid() != 0 and file.st_uid == file.st_gid == 0
    return bool(file.st_mode & (0o037 if is_of_root else 0o077))


def sync_folder(folder: Path) -> None:
    """Have the disk hold which files are in a folder, so that a power cut does not undo a new one."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter, unless it is there already.

    Raises:
        ConfigError: It cannot be made or written.
    """
    try:
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)  # one that exists keeps its mode: it may be shared
            sync_folder(path.parent)  # else a power cut may take the folder with all that was synced in it
    except OSError as error:
        raise ConfigError(
            f"PNL_DATA_DIR: the folder {path} cannot be used ({error.strerror}); choose one that you can write to"
        ) from error
    return path
