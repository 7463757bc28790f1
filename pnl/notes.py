"""A person's notes, each pinned to an instant: a small file of its own, which any process may write at any time.

A file and not a table of the store: that has one writer, and a note is to be made beside a running dashboard as well.
It is put in place whole, so a kill leaves the old one or the new one.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from pnl.config import private_folder, sync_folder
from pnl.errors import StoreError
from pnl.records import EPOCH

FILE = "notes.json"
LONGEST_TEXT = 500
MOST_NOTES = 1000

type Stamp = tuple[int, int, int]
"""What tells one version of a file from another."""


class Note(msgspec.Struct, frozen=True):
    """What somebody wants to remember of an instant; `number` is its own for good, and its text as hostile as any."""

    number: int
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    text: Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT, pattern=r"\A[^\x00-\x1f\x7f-\x9f]+\Z")]


class _Pinned(msgspec.Struct, frozen=True):
    """All that is in the file; numbers go on where the highest ever ended."""

    next_number: int = 1
    notes: tuple[Note, ...] = ()


class Notes:
    """The notes of one data folder; nothing is there until the first is made.

    Args:
        folder: The data folder; it may be set to another one before the first look.
        now: The time of day, aware.
    """

    def __init__(self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.folder = folder
        self._now = now
        self._watchers: list[Callable[[], None]] = []
        self._read: tuple[Stamp | None, tuple[Note, ...]] = (None, ())

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Have a function called whenever the notes are others, in the thread that finds it; returns what ends that."""
        self._watchers.append(on_change)
        return lambda: self._watchers.remove(on_change)

    def all(self) -> tuple[Note, ...]:
        """Every note, oldest instant first; one look at the file tells whether another process wrote it.

        Raises:
            StoreError: The file cannot be read, or is none that this program wrote.
        """
        stamp = self._stamp()
        if stamp != self._read[0]:
            self._adopt(stamp, self._load().notes)
        return self._read[1]

    def add(self, text: str, at: datetime | None = None) -> Note:
        """Make a note; it is on disk when this returns.

        Args:
            text: One line of at most 500 characters; what cannot be printed is left out.
            at: Aware; now unless given.

        Raises:
            ValueError: There is no text, it is too long, or the instant makes no sense.
            StoreError: The file cannot be read or written; it is left as it was.
        """
        line = _line(text)
        moment = self._now() if at is None else at
        if moment < EPOCH:
            raise ValueError("a note is pinned to an instant after 1970")
        with self._held() as before:
            if len(before.notes) >= MOST_NOTES:
                raise ValueError(f"there are {MOST_NOTES:,} notes, which is all that there may be; remove some first")
            note = Note(before.next_number, moment.astimezone(UTC), line)
            self._save(_Pinned(note.number + 1, (*before.notes, note)))
        self.all()
        return note

    def remove(self, number: int) -> bool:
        """Take a note away, for good; False if there is none of this number.

        Raises:
            StoreError: The file cannot be read or written; it is left as it was.
        """
        with self._held() as before:
            kept = tuple(note for note in before.notes if note.number != number)
            if is_there := len(kept) < len(before.notes):
                self._save(_Pinned(before.next_number, kept))
        self.all()
        return is_there

    @property
    def _path(self) -> Path:
        return self.folder / FILE

    def _stamp(self) -> Stamp | None:
        try:
            found = self._path.stat()
        except OSError:  # not there yet
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _adopt(self, stamp: Stamp | None, notes: tuple[Note, ...]) -> None:
        ordered = tuple(sorted(notes, key=lambda note: (note.at, note.number)))
        is_news, self._read = ordered != self._read[1], (stamp, ordered)
        for on_change in list(self._watchers) if is_news else ():
            on_change()

    def _load(self) -> _Pinned:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Pinned)
        except FileNotFoundError:
            return _Pinned()
        except OSError as error:
            raise StoreError(f"{self._path} cannot be read ({error.strerror})") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{self._path} holds no notes that this program wrote ({error}); it was left as it is: mend or move it"
            ) from error

    @contextmanager
    def _held(self) -> Iterator[_Pinned]:
        """What is in the file, which no other process changes until the block ends."""
        private_folder(self.folder)
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be used ({error.strerror})") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # of the folder: the file itself is another one after each change
            yield self._load()
        finally:
            os.close(folder)

    def _save(self, pinned: _Pinned) -> None:
        unfinished = self._path.with_suffix(".part")
        try:
            unfinished.unlink(missing_ok=True)  # of a process that was killed
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(pinned)))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._path)
            sync_folder(self.folder)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written ({error.strerror}); no note was changed") from error


def _line(text: str) -> str:
    """The text as one line without what a terminal or a page would obey."""
    line = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    if not line:
        raise ValueError("a note needs a text")
    if len(line) > LONGEST_TEXT:
        raise ValueError(f"a note has at most {LONGEST_TEXT} characters, this one has {len(line)}")
    return line
