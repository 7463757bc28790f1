"""The address of a database, taken apart for those who connect to it; its text for people has no secret in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from pnl.config import is_loopback

PORT = "5432"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a PostgreSQL database is; `password` and `options` (libpq's own) are never shown."""

    host: str
    port: str
    database: str
    user: str
    password: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, url: SecretStr) -> Self:
        """From a setting that `config.database_url` has let pass."""
        parts = urlsplit(url.get_secret_value())
        options = dict(parse_qsl(parts.query))
        host = unquote(parts.hostname or options.pop("host", "localhost"))
        if not is_loopback(f"postgresql://{parts.hostname}") and not host.startswith("/"):
            options = {"sslmode": "require"} | options
        user, database = unquote(parts.username or ""), unquote(parts.path.strip("/"))
        return cls(host, str(parts.port or PORT), database, user, unquote(parts.password or ""), options)

    def __str__(self) -> str:
        return f"the database {self.database} at {self.host}:{self.port}"

    @property
    def parameters(self) -> dict[str, str]:
        """What libpq connects with, the password aside; it notices within ten seconds that the other end is gone."""
        return {
            "connect_timeout": "5",
            "keepalives_idle": "5",
            "keepalives_interval": "2",
            "keepalives_count": "2",
            "tcp_user_timeout": "10000",
            **self.options,
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
        }
