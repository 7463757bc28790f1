"""What a person, or who helps them, wants to know of an installation: one look, nothing changed, no secret shown."""

from collections.abc import AsyncIterator

from pnl.config import Settings, origins
from pnl.doctor.database import database_found
from pnl.doctor.findings import Finding, Mark
from pnl.doctor.folder import folder_found
from pnl.doctor.parts import parts_found
from pnl.doctor.records import records_found
from pnl.doctor.settings import keys_found, settings_found
from pnl.doctor.shared import shared_found
from pnl.doctor.sources import sources_found

__all__ = ["Finding", "Mark", "examine"]


async def examine(settings: Settings, *, offline: bool = False) -> AsyncIterator[Finding]:
    """Look at settings, keys, sources, the shared cache, folder, database, records and optional parts, in this order.

    Args:
        settings: As `load_settings()` read them.
        offline: Ask no source and no server anything.
    """
    ours = [*settings_found(settings, origins()), *keys_found(settings)]
    for finding in ours:
        yield finding
    wrong = {finding.said for finding in ours if finding.mark is Mark.FAILED}
    async for finding in sources_found(settings, offline=offline, known=wrong):
        yield finding
    async for finding in shared_found(settings, offline=offline):
        yield finding
    for finding in folder_found(settings.data_dir):
        yield finding
    async for finding in database_found(settings):
        yield finding
    async for finding in records_found(settings):
        yield finding
    for finding in parts_found(settings):
        yield finding
