"""The file that a report becomes: what it is called, and writing it whole or not at all, for its owner alone."""

import os
import re
from datetime import datetime, tzinfo
from pathlib import Path
from tempfile import NamedTemporaryFile

from pnl.errors import ReportError
from pnl.history.ranges import Range


def file_name(range_: Range, at: datetime, zone: tzinfo) -> str:
    """What a report's file is called: its period and its instant, by the wall clock."""
    period = re.sub(r"[^a-z0-9]+", "-", range_.name.lower()).strip("-") or "all"
    return f"pnl-report-{period[:60]}-{at.astimezone(zone):%Y-%m-%d-%H%M}.html"


def write_whole(path: Path, html: str, *, makes_folder: bool = False) -> None:
    """Write a report's file, mode 0600, in the place of one that is there; a failure leaves that one as it is.

    Raises:
        ReportError: It cannot be written.
    """
    try:
        if makes_folder:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("wb", dir=path.parent, prefix=".report-", delete=False) as file:  # mode 0600
            part = Path(file.name)
            file.write(html.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ReportError(f"the report {path} cannot be written ({error.strerror})") from error
    try:
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ReportError(f"the report {path} cannot be written ({error.strerror})") from error
