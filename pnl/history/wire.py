"""What the two processes say to each other: frames of MessagePack over a pipe, columns as the bytes of an array."""

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal

import msgspec
import numpy as np
import numpy.typing as npt

NOTHING = msgspec.Raw(msgspec.msgpack.encode(None))
LENGTH = struct.Struct(">I")

type Column = npt.NDArray[Any]
type Columns = dict[str, Column]


class Counted(msgspec.Struct, frozen=True):
    """Whose records count: a source that is not configured any more is in no total. None: all of them."""

    sources: frozenset[str] | None = None
    origins: frozenset[str] | None = None

    def has(self, source: str, origin: str) -> bool:
        """Whether a record of this source, from this address, counts."""
        return (self.sources is None or source in self.sources) and (self.origins is None or origin in self.origins)


class Database(msgspec.Struct, frozen=True):
    """A database in the place of the store's file: its name for people, and what libpq connects with."""

    name: str
    parameters: dict[str, str]
    password: str

    def __repr__(self) -> str:
        return f"Database({self.name!r})"


class Opening(msgspec.Struct, frozen=True):
    """The first thing that a worker is told; `room` is what it answers for.

    It comes over the pipe, as a password in it must not be where other processes can look.
    """

    path: str
    kind: str | None
    zone: str
    counted: Counted
    room: Literal["past", "console", "files"] = "past"
    database: Database | None = None


class Question(msgspec.Struct, frozen=True):
    """What is asked, and with what; `version` as `History` counts them, None if nobody counts."""

    kind: str
    values: dict[str, Any]
    version: Any = None


class Answer(msgspec.Struct, frozen=True):
    """What comes back: a value, encoded, or an error that a person can act on, and the statements that took long."""

    value: msgspec.Raw = NOTHING
    error: str | None = None
    slow: list[tuple[str, float]] = []


def frame(message: msgspec.Struct) -> bytes:
    """A message with its length before it."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next message's bytes; None at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return stream.read(LENGTH.unpack(head)[0])


def packed(columns: Mapping[str, Column]) -> dict[str, tuple[str, bytes]]:
    """Columns of numbers as their types and bytes."""
    return {name: (values.dtype.str, values.tobytes()) for name, values in columns.items()}


def unpacked(columns: Mapping[str, tuple[str, bytes]]) -> Columns:
    """The columns again; they cannot be written to."""
    return {name: np.frombuffer(values, dtype) for name, (dtype, values) in columns.items()}
