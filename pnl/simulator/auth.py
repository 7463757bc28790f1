"""Keys of the simulated accounts, and the check of a signature as the venue makes it."""

import base64
import binascii
import os
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from pnl.errors import SimulatorError

KeyType = Literal["rsa", "ed25519"]
PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)


def open_key(path: Path, key_type: KeyType) -> PrivateKey:
    """The private key in the PEM file `path`; a file that is not there is written, mode 0600.

    A key that is there already is kept, whatever its type: no file of the user's is ever overwritten.

    Raises:
        SimulatorError: The file is there and holds no RSA or Ed25519 key, or it cannot be written.
    """
    try:
        return _read(path.read_bytes(), path) if path.exists() else _write(_make(key_type), path)
    except OSError as error:
        raise SimulatorError(f"the key file {path} cannot be used: {error.strerror}") from error


def _read(pem: bytes, path: Path) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise SimulatorError(f"{path} is there already, and holds no private key") from error
    if not isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise SimulatorError(f"{path} holds a key that is neither RSA nor Ed25519")
    return key


def _make(key_type: KeyType) -> PrivateKey:
    if key_type == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _write(key: PrivateKey, path: Path) -> PrivateKey:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor: the mode is right from the first byte)
        file.write(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return key


def is_signed(public: PublicKey, message: bytes, signature: str) -> bool:
    """Whether `signature` (base64) is this key's for `message`: RSA-PSS with SHA-256, or Ed25519."""
    try:
        raw = base64.b64decode(signature, validate=True)
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(raw, message)
        else:
            public.verify(raw, message, _PSS, hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
