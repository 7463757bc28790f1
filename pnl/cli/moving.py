"""What brings a record from one place to another: migrate-store."""

from pnl.config import load_settings
from pnl.errors import ConfigError
from pnl.store.place import with_postgres
from pnl.terminal import progress_bars


def migrate_store() -> None:
    """Copy the record of the data folder into the database, and say what was copied.

    Raises:
        PnlError: It cannot be done; the database is as it was.
    """
    settings = load_settings()
    if settings.store_url is None:
        raise ConfigError("PNL_STORE_URL is not set: it names the database that the record is to be copied into")
    with with_postgres():
        from pnl.store.move import move  # noqa: PLC0415 - a part that may be left out
    with progress_bars() as progress:
        lines = {}

        def on_rows(table: str, done: int, whole: int) -> None:
            if table not in lines:
                lines[table] = progress.add_task(table)
            progress.update(lines[table], completed=done, total=whole)

        counts = move(settings.data_dir, settings.store_url, on_rows)
    for table, count in counts.items():
        print(f"{table}: {count:,} rows, equal")
    print(f"What is in {settings.data_dir} stays there; the database is used from the next start on.")
