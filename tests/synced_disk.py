"""What a power cut may leave of a folder: the writes of a program, as strace saw them, on a disk that keeps promises.

The disk promises what POSIX does and no more: what was written to a file before a sync of that file is there, and a
name is there once its folder was synced. Of everything later, each sector and each name is there or not.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

TRACED = (
    *("?open", "?creat", "openat", "close", "lseek", "write", "writev", "pwrite64", "pwritev", "pwritev2"),
    *("fsync", "fdatasync", "sync_file_range", "ftruncate", "truncate", "fallocate", "copy_file_range", "sendfile"),
    *("?rename", "?renameat", "renameat2", "?link", "linkat", "?unlink", "unlinkat", "msync"),
)
STRACE = ("strace", "-f", "--seccomp-bpf", "-xx", "-s", "1000000", "-e", f"trace={','.join(TRACED)}", "-o")
LINE = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
SECTORS = (512, 4096, 1 << 62)
KEPT = (0, 0.2, 0.5, 0.8, 1)


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call of the system: its name, its arguments as strace writes them, and what it gave back."""

    name: str
    args: list[str]
    result: int

    def text(self, place: int) -> bytes:
        """Give an argument that is a string."""
        return bytes.fromhex(self.args[place].strip('"').replace("\\x", ""))


def calls_of(log: Path) -> Iterator[Call]:
    """Read the calls that succeeded, in the order in which they ended."""
    begun: dict[str, str] = {}
    for line in log.read_text(encoding="ascii").splitlines():
        thread = line.partition(" ")[0]
        if line.endswith("<unfinished ...>"):
            begun[thread] = line.removesuffix(" <unfinished ...>")
            continue
        if " resumed>" in line:
            line = begun.pop(thread) + line.partition(" resumed>")[2]  # noqa: PLW2901 - the same line, whole again
        found = LINE.match(line)
        if found and int(found[3]) >= 0:
            yield Call(found[1], found[2].split(", "), int(found[3]))


@dataclass(frozen=True, slots=True)
class Length:
    """A file is cut or grows to a length; `at_least` leaves a longer file as it is."""

    length: int
    at_least: bool = False

    def apply(self, content: bytearray) -> None:
        """Do it."""
        if not self.at_least:
            del content[self.length :]
        content.extend(bytes(max(0, self.length - len(content))))

    def pieces(self, sector: int) -> Iterator["Length"]:
        """Give what may be on the disk or not."""
        del sector
        yield self


@dataclass(frozen=True, slots=True)
class Write:
    """Some bytes at an offset."""

    offset: int
    text: bytes

    def apply(self, content: bytearray) -> None:
        """Do it."""
        end = self.offset + len(self.text)
        content.extend(bytes(max(0, end - len(content))))
        content[self.offset : end] = self.text

    def pieces(self, sector: int) -> Iterator["Length | Write"]:
        """Give what may be on the disk or not: the file's new length, and each sector."""
        end = self.offset + len(self.text)
        yield Length(end, at_least=True)
        start = self.offset
        while start < end:
            stop = min(end, (start // sector + 1) * sector)
            yield Write(start, self.text[start - self.offset : stop - self.offset])
            start = stop


@dataclass(slots=True, eq=False)
class File:
    """A file: what is surely on the disk, and what is only on its way."""

    synced: bytearray = field(default_factory=bytearray)
    later: list[Length | Write] = field(default_factory=list)

    def sync(self) -> None:
        """Bring everything to the disk."""
        for change in self.later:
            change.apply(self.synced)
        self.later.clear()

    def after_cut(self, random: Random, kept: float, sector: int) -> bytes:
        """Give one content that the file may have when the power is back."""
        content = bytearray(self.synced)
        for change in self.later:
            for piece in change.pieces(sector):
                if random.random() < kept:
                    piece.apply(content)
        return bytes(content)


@dataclass(frozen=True, slots=True)
class Naming:
    """A name gets a file, or none any more."""

    name: str
    file: File | None
    before: str | None = None

    def apply(self, names: dict[str, File]) -> None:
        """Do it; a file that moves has its new name and not its old one, or the other way round."""
        names.pop(self.before or self.name, None)
        if self.file is not None:
            names[self.name] = self.file


@dataclass(slots=True)
class Opened:
    """A descriptor: of a file at a position, or of the folder itself."""

    file: File | None
    position: int = 0


class SyncedDisk:
    """The folder on that disk, call by call."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fsencode(folder)
        self._names: dict[str, File] = {}
        self._synced_names: dict[str, File] = {}
        self._later: list[Naming] = []
        self._opened: dict[str, Opened] = {}

    def do(self, call: Call) -> None:
        """Follow one call; what has nothing to do with the folder changes nothing.

        Raises:
            NotImplementedError: A call changes the folder in a way that is not followed here.
        """
        if call.name == "openat":
            self._open(call)
        elif call.name in {"unlink", "unlinkat", "rename", "renameat", "renameat2"}:
            self._name(call)
        elif (opened := self._opened.get(call.args[0])) is not None:
            self._use(opened, call)
        elif any(self._name_in(call, place) for place, arg in enumerate(call.args) if arg.startswith('"\\x2f')):
            raise NotImplementedError(call.name)

    def _name_in(self, call: Call, place: int) -> str | None:
        folder, _, name = call.text(place).rpartition(b"/")
        return os.fsdecode(name) if folder == self._folder else None

    def _open(self, call: Call) -> None:
        fd = str(call.result)
        name = self._name_in(call, 1)
        if call.text(1) == self._folder:
            self._opened[fd] = Opened(None)
        elif name is None:
            self._opened.pop(fd, None)
        else:
            if name not in self._names:
                self._rename(Naming(name, File()))
            file = self._names[name]
            self._opened[fd] = Opened(file)
            if "O_TRUNC" in call.args[2]:
                file.later.append(Length(0))

    def _name(self, call: Call) -> None:
        names = [self._name_in(call, place) for place, arg in enumerate(call.args) if arg.startswith('"')]
        if names[0] is None:
            return
        if call.name.startswith("unlink"):
            self._rename(Naming(names[0], None))
        elif names[1] is not None:
            self._rename(Naming(names[1], self._names[names[0]], before=names[0]))
        else:
            raise NotImplementedError(call.name)

    def _rename(self, naming: Naming) -> None:
        naming.apply(self._names)
        self._later.append(naming)

    def _use(self, opened: Opened, call: Call) -> None:
        match call.name, opened.file:
            case "close", _:
                del self._opened[call.args[0]]
            case "lseek", _:
                opened.position = call.result
            case "fsync" | "fdatasync", None:
                self._synced_names = dict(self._names)
                self._later.clear()
            case "fsync" | "fdatasync", file:
                file.sync()
            case "ftruncate", File() as file:
                file.later.append(Length(int(call.args[1])))
            case "pwrite64", File() as file:
                file.later.append(Write(int(call.args[3]), call.text(1)[: call.result]))
            case "write", File() as file:
                file.later.append(Write(opened.position, call.text(1)[: call.result]))
                opened.position += call.result
            case name, _:
                raise NotImplementedError(name)

    def after_cut(self, random: Random) -> dict[str, bytes]:
        """Give one set of files that the folder may hold when the power is back."""
        kept, sector = random.choice(KEPT), random.choice(SECTORS)
        names = dict(self._synced_names)
        for naming in self._later:
            if random.random() < kept:
                naming.apply(names)
        return {name: file.after_cut(random, kept, sector) for name, file in names.items()}
