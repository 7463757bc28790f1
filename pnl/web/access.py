"""Who may see the dashboard: what the settings say about it, and whether that is safe."""

import hmac
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bokeh.settings import settings as bokeh_settings
from pydantic import SecretStr

from pnl.config import Role, Settings, others_read
from pnl.errors import ConfigError

LEAST_LETTERS = 8
ROLE = "Pnl-Role"
"""The header by which the gate tells a page whose it is; one that came from outside is never handed on."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks: `until_s`, in seconds since the epoch, and `token` are of the link that let somebody in, if one did."""

    role: Role
    until_s: int | None = None
    token: str | None = None


def role_of_page(headers: Mapping[str, Any]) -> Role:
    """Whose page it is, from the headers of its session; the least of all where nobody has said."""
    return Role.OWNER if headers.get(ROLE) == Role.OWNER.value else Role.VIEWER


def serving_advice(settings: Settings, address: str) -> list[str]:
    """What to tell whoever serves the dashboard on an address, before it is served.

    Raises:
        ConfigError: Other machines reach that address, and nobody would ask who visitors are, or under which name.
    """
    passwords = read_passwords(settings)
    if is_this_machine(address):
        return []
    if not passwords and not settings.behind_proxy:
        raise ConfigError(
            f"--address {address}: other machines would see the numbers without being asked who they are. "
            "Set PNL_PASSWORD_FILE to a file with a password, or add --behind-proxy if a proxy asks them"
        )
    if not settings.hosts:
        raise ConfigError(
            f"--address {address}: set PNL_ALLOWED_HOSTS to the names that browsers will use for it, "
            "for instance pnl.example.org,192.168.1.20"
        )
    if settings.behind_proxy or bokeh_settings.ssl_certfile() is not None:
        return []
    return ["the password travels readable: put a proxy with TLS in front, or set BOKEH_SSL_CERTFILE and _KEYFILE"]


def is_this_machine(address: str) -> bool:
    """Whether an address, or the name `localhost`, is a loopback one."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def read_passwords(settings: Settings) -> Mapping[Role, str]:
    """The password of each role that has one; without an owner's there is none, and nobody is asked.

    Raises:
        ConfigError: One is too short, its file cannot be read or can be read by others, viewers have one and owners
            none, or both have the same.
    """
    owner = _password("PNL_PASSWORD", settings.password, settings.password_file)
    viewer = _password("PNL_VIEWER_PASSWORD", settings.viewer_password, settings.viewer_password_file)
    if viewer is None:
        return {} if owner is None else {Role.OWNER: owner}
    if owner is None:
        raise ConfigError("PNL_VIEWER_PASSWORD: without PNL_PASSWORD everybody is an owner; set both, or neither")
    if hmac.compare_digest(owner.encode(), viewer.encode()):
        raise ConfigError("PNL_VIEWER_PASSWORD: it is the owner's; viewers need one of their own")
    return {Role.OWNER: owner, Role.VIEWER: viewer}


def _password(setting: str, given: SecretStr | None, path: Path | None) -> str | None:
    if given is not None:
        return _long_enough(setting, given.get_secret_value())
    if path is not None:
        return _long_enough(f"{setting}_FILE", _private_text(f"{setting}_FILE", path).strip())
    return None


def _long_enough(setting: str, password: str) -> str:
    if len(password) < LEAST_LETTERS:
        raise ConfigError(f"{setting}: the password should have at least {LEAST_LETTERS} letters")
    return password


def _private_text(setting: str, path: Path) -> str:
    setting = f"{setting}: {path}"
    try:
        found = path.stat()
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{setting} cannot be read ({error.strerror})") from None
    except UnicodeError:
        raise ConfigError(f"{setting} is no text file") from None
    if others_read(found):
        raise ConfigError(
            f"{setting} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}); run: chmod 600 '{path}'"
        )
    return text
