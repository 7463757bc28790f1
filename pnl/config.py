"""Settings: from the environment, else `pnl.toml`, else the default; the only reader of the environment."""

import os
import re
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from platformdirs import user_data_path
from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from pnl.errors import ConfigError

TOML_FILE = "pnl.toml"
KALSHI_PATH = "/trade-api/v2"
ONE_WORD = re.compile(r"[!-~]+")


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


HttpUrl = Annotated[str, AfterValidator(http_url)]
PollSeconds = Annotated[float | None, Field(ge=0.1, le=86_400)]


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

    breaker_failures: int = Field(
        3, ge=1, le=100, description="Failures of a source in a row; after one more it is left alone for a while."
    )
    breaker_s: float = Field(
        60, ge=1, le=3600, description="Seconds for which it is left alone; then one request tries whether it is back."
    )

    store_synchronous: Literal["FULL", "NORMAL"] = Field(
        "FULL",
        description="SQLite durability. NORMAL saves a millisecond per commit and may lose the last ones at a power "
        "cut (421 of 500 simulated cuts lost some; FULL lost none).",
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
        description="Port of 127.0.0.1 that answers `/metrics`, `/readyz` and `/healthz` without a password; 0: none. "
        "Unless set it is 9464 under `panel serve`, where no password is asked for; else the dashboard's own port has "
        "them alone.",
    )
    allowed_hosts: str | None = Field(
        None, description="Names or addresses that the dashboard goes by besides localhost, separated by commas."
    )
    password: SecretStr | None = Field(None, description="Password that the dashboard asks for, 8 letters or more.")
    password_file: Path | None = Field(
        None, description="File that holds this password, readable by you alone (mode 0600)."
    )
    cookie_secret: SecretStr | None = Field(
        None, description="Signs the login's cookies. Unless set it is new at each start: everybody logs in anew."
    )
    behind_proxy: bool = Field(
        default=False,
        description="A proxy in front of the dashboard asks who visitors are. Other machines may then reach it "
        "without a password, and the proxy is believed when it says who asks (`X-Forwarded-For`, `X-Forwarded-Proto`).",
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

    @field_validator("data_dir", "kalshi_private_key_path", "password_file")
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

    @cached_property
    def zone(self) -> ZoneInfo:
        """The reporting time zone."""
        return ZoneInfo(self.timezone)

    @property
    def hosts(self) -> frozenset[str]:
        """`allowed_hosts`, one by one and in lower case."""
        return frozenset(host.strip().lower() for host in (self.allowed_hosts or "").split(",")) - {""}

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


def _in_words(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")


def _sync(folder: Path) -> None:
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
            _sync(path.parent)  # else a power cut may take the folder with all that was synced in it
    except OSError as error:
        raise ConfigError(
            f"PNL_DATA_DIR: the folder {path} cannot be used ({error.strerror}); choose one that you can write to"
        ) from error
    return path
