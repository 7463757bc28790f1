"""The database, where there is one in the place of a file: whether it answers, and who records in it."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from pnl.config import Settings
from pnl.doctor.findings import Finding, Mark
from pnl.errors import PnlError
from pnl.store import beside_of

Found = partial(Finding, "Database")


async def database_found(settings: Settings) -> AsyncIterator[Finding]:
    """Whether it can be read, and which process holds it; nothing where the record is in the data folder."""
    for name in ("store_url", "store_read_url"):
        if getattr(settings, name) is not None:
            yield await asyncio.to_thread(_looked_at, settings, name)


def _looked_at(settings: Settings, name: str) -> Finding:
    try:
        beside = beside_of(settings.data_dir, getattr(settings, name), "simulated" if settings.is_simulated else "real")
        with beside:
            who = beside.holder()
    except PnlError as error:
        return Found(f"PNL_{name.upper()}", str(error), Mark.FAILED)
    return Found(f"PNL_{name.upper()}", f"answers; {who} records in it" if who else "answers; nobody records in it now")
