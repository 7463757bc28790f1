"""A value as the levels below memory hold it: with a stamp, and a check sum of the two and of its key."""

import struct
import zlib

LARGEST_BYTES = 256 * 1024

_CHECK = struct.Struct(">I")  # CRC-32: neither SQLite nor Redis notices a flipped bit


class Refused(ValueError):
    """A row or a value that this cache does not write and will not read."""


def pack(key: str, stamp: bytes, value: bytes) -> bytes:
    """The row of a value."""
    return _CHECK.pack(_checksum(key, stamp, value)) + stamp + value


def unpack(key: str, row: bytes, stamp_bytes: int) -> tuple[bytes, bytes]:
    """The stamp and the value of a row.

    Raises:
        Refused: It is damaged, or was stored for another key.
    """
    start = _CHECK.size + stamp_bytes
    check, stamp, value = row[: _CHECK.size], row[_CHECK.size : start], row[start:]
    if len(row) < start or check != _CHECK.pack(_checksum(key, stamp, value)):
        raise Refused("a row that is damaged, or stored for another key")
    return stamp, value


def _checksum(key: str, stamp: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(stamp + key.encode()))
