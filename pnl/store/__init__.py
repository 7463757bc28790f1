"""The one SQLite writer: records and snapshots in, one commit for what belongs together, minutes rolled up with it."""

from pnl.store.tables import Change, Recorded
from pnl.store.writer import Store, read_beside

__all__ = ["Change", "Recorded", "Store", "read_beside"]
