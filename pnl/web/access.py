"""Who may see the dashboard: what the settings say about it, and whether that is safe."""

import stat
from ipaddress import ip_address
from pathlib import Path

from bokeh.settings import settings as bokeh_settings

from pnl.config import Settings
from pnl.errors import ConfigError

LEAST_LETTERS = 8


def serving_advice(settings: Settings, address: str) -> list[str]:
    """What to tell whoever serves the dashboard on an address, before it is served.

    Raises:
        ConfigError: Other machines reach that address, and nobody would ask who visitors are, or under which name.
    """
    password = read_password(settings)
    if is_this_machine(address):
        return []
    if password is None and not settings.behind_proxy:
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


def read_password(settings: Settings) -> str | None:
    """The password that the dashboard asks for; None: it asks for none.

    Raises:
        ConfigError: It is too short, or its file cannot be read or can be read by others.
    """
    if settings.password is not None:
        return _long_enough("PNL_PASSWORD", settings.password.get_secret_value())
    if settings.password_file is not None:
        return _long_enough("PNL_PASSWORD_FILE", _private_text(settings.password_file).strip())
    return None


def _long_enough(setting: str, password: str) -> str:
    if len(password) < LEAST_LETTERS:
        raise ConfigError(f"{setting}: the password should have at least {LEAST_LETTERS} letters")
    return password


def _private_text(path: Path) -> str:
    setting = f"PNL_PASSWORD_FILE: {path}"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{setting} cannot be read ({error.strerror})") from None
    except UnicodeError:
        raise ConfigError(f"{setting} is no text file") from None
    if mode & 0o077:
        raise ConfigError(f"{setting} can be read by others (mode {mode:04o}); run: chmod 600 '{path}'")
    return text
