"""Settings and where each comes from, and the keys; a secret is set or not set."""

import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from pydantic import SecretStr

from pnl.config import NOTHING_SET, TOML_FILE, Origin, Settings
from pnl.doctor.findings import Finding, Mark
from pnl.errors import ConfigError
from pnl.sources.kalshi import load_private_key
from pnl.web.access import read_passwords

ADMIN_KEY = "sk-ant-admin"
OTHERS = stat.S_IRWXG | stat.S_IRWXO

Setting = partial(Finding, "Settings")
Key = partial(Finding, "Keys")


def settings_found(settings: Settings, origins: Mapping[str, Origin]) -> Iterator[Finding]:
    """Every setting with its origin, and whether they go together."""
    for name in Settings.model_fields:
        yield Setting(f"PNL_{name.upper()}", _shown(name, getattr(settings, name)), origin=origins[name])
    if not settings.has_source:
        yield Setting("sources", NOTHING_SET, Mark.FAILED)
    try:
        if settings.is_simulated:
            yield Setting("numbers", "trading or costs are simulated: nobody's money")
    except ConfigError as error:
        yield Setting("numbers", str(error), Mark.FAILED)
    secrets = (name for name, value in settings if isinstance(value, SecretStr))
    if any(origins[name] == TOML_FILE for name in secrets) and (mode := _mode(Path(TOML_FILE))) & OTHERS:
        said = f"holds a secret, and others can read it (mode {mode:04o})"
        yield Setting(TOML_FILE, said, Mark.FAILED, f"run: chmod 600 {TOML_FILE}")


def _shown(name: str, value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, SecretStr) or name == "kalshi_key_id":
        return "set"
    return without_query(value) if isinstance(value, str) else str(value)


def without_query(text: str) -> str:
    """An address without what may be a secret in it: a query, a user's name."""
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "set, and no address"
    return f"{parts.scheme}://{host}{port}{parts.path}{'?…' if parts.query else ''}"


def keys_found(settings: Settings) -> Iterator[Finding]:
    """Whether each key that is set can be what it should be; nothing is sent anywhere."""
    if settings.kalshi_private_key_path is not None:
        yield _private_key(settings.kalshi_private_key_path)
    if settings.anthropic_admin_key is not None:
        yield _admin_key(settings.anthropic_admin_key.get_secret_value())
    if settings.password is not None or settings.password_file is not None:
        yield _password(settings)


def _private_key(path: Path) -> Finding:
    try:
        key = load_private_key(path)
    except ConfigError as error:
        return Key("Kalshi's private key", str(error), Mark.FAILED)
    kind = f"RSA, {key.key_size} bits" if isinstance(key, RSAPrivateKey) else "Ed25519"
    return Key("Kalshi's private key", f"{path}: {kind}, mode {_mode(path):04o}")


def _admin_key(key: str) -> Finding:
    if key.startswith(ADMIN_KEY):
        return Key("Anthropic's Admin key", f"begins with {ADMIN_KEY}, as it should")
    advice = "the console of your organisation makes Admin keys; others may not read costs"
    return Key("Anthropic's Admin key", f"does not begin with {ADMIN_KEY}", Mark.WARNING, advice)


def _password(settings: Settings) -> Finding:
    try:
        read_passwords(settings)
    except ConfigError as error:
        return Key("password", str(error), Mark.FAILED)
    return Key("password", "set; the dashboard asks for it")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
