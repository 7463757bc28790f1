"""A model that shows what another process records, for a dashboard on a data folder that is taken."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from pnl.model import PnLModel
from pnl.records import Mark, Snapshot
from pnl.store import Beside

type Looked = tuple[Snapshot | None, PnLModel | Sequence[Mark]]


class Follower:
    """Brings a model to what is recorded beside it, whenever that has grown."""

    def __init__(self, model: PnLModel, beside: Beside) -> None:
        self._model = model
        self._beside = beside
        self._shown: Snapshot | None = None
        self._is_behind = False

    async def catch_up(self, holder: str) -> None:
        """Show the newest snapshot, if it is news, and say who records.

        Args:
            holder: The process that does, for people.

        Raises:
            StoreError: The record cannot be read now.
        """
        newest, known = await self._in_thread(self._look)
        if isinstance(known, PnLModel):
            self._model.become(known)
        else:
            self._model.price(known)
        if newest is not None:
            says = f"Recorded by {holder} {self._beside.where}; this page follows it."
            self._model.show_recorded(replace(newest, notes=(says, *newest.notes)))

    async def holder(self) -> str | None:
        """The process that records, None if there is none or it is not told.

        Raises:
            StoreError: The record cannot be read now.
        """
        return await self._in_thread(self._beside.holder)

    @staticmethod
    async def _in_thread[T](look: Callable[[], T]) -> T:
        """Look in a thread; should nobody wait any more, wait for its end, so that the record can be closed."""
        looking = asyncio.ensure_future(asyncio.to_thread(look))
        try:
            return await asyncio.shield(looking)
        except asyncio.CancelledError:
            await asyncio.gather(looking, return_exceptions=True)
            raise

    def _look(self) -> Looked:
        """The newest snapshot if there is a new one, and a model of its records, or prices if those are the same."""
        self._is_behind = self._beside.has_grown() or self._is_behind  # that is said once, and reading it may fail
        found = self._read() if self._is_behind else (None, ())
        self._is_behind = False
        return found

    def _read(self) -> Looked:
        newest = self._beside.newest(self._model.readings)
        if newest is None or newest == self._shown:
            return None, ()
        is_same = self._shown is not None and newest.records == self._shown.records
        known = self._beside.marks() if is_same else self._model.restored(self._beside.recorded())
        self._shown = newest
        return newest, known
