"""The one SQLite writer: records and snapshots in, one commit for what belongs together, minutes rolled up with it."""

from pnl.store.beside import FILE, Beside, beside_of, newest_beside, read_beside
from pnl.store.place import Kind
from pnl.store.retention import Archived
from pnl.store.tables import Change, Recorded
from pnl.store.writer import Store

__all__ = [
    "FILE",
    "Archived",
    "Beside",
    "Change",
    "Kind",
    "Recorded",
    "Store",
    "beside_of",
    "newest_beside",
    "read_beside",
]
