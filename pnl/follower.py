"""A model that shows what another process records, for a dashboard on a data folder that is taken."""

import asyncio
import sqlite3
from dataclasses import replace

from pnl.errors import StoreError
from pnl.model import PnLModel
from pnl.records import Snapshot
from pnl.store import Beside


class Follower:
    """Brings a model to what is recorded beside it, whenever that has grown."""

    def __init__(self, model: PnLModel, beside: Beside) -> None:
        self._model = model
        self._beside = beside
        self._shown: Snapshot | None = None

    async def catch_up(self, holder: str) -> None:
        """Show the newest snapshot, if it is news, and say who records.

        Args:
            holder: The process that does, for people.

        Raises:
            StoreError: The record cannot be read now.
        """
        try:
            newest = await asyncio.to_thread(self._look)
        except sqlite3.Error as error:
            raise StoreError(f"what {holder} records cannot be read: {error}") from error
        if newest is not None:
            says = f"Recorded by {holder} on this machine, which holds the data folder; this page follows it."
            self._model.show_recorded(replace(newest, notes=(says, *newest.notes)))

    def _look(self) -> Snapshot | None:
        """The newest snapshot if there is a new one; records are read anew when it counts other ones."""
        if not self._beside.has_grown():
            return None
        newest = self._beside.newest(self._model.readings)
        if newest is None or newest == self._shown:
            return None
        if self._shown is None or newest.records != self._shown.records:
            self._model.restore(self._beside.recorded())
        self._shown = newest
        return newest
