"""What a measurement prints: one JSON object for programs, or a table for people."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pnl.metrics import percentiles


def tell(title: str, figures: Mapping[str, object], *, as_json: bool) -> None:
    """Print figures by name: as one JSON object, else as a table."""
    if as_json:
        print(json.dumps(figures))
        return
    table = Table(title=title, show_header=False)
    for name, value in figures.items():
        table.add_row(name, json.dumps(value) if isinstance(value, Mapping | list) else f"{value}")
    Console().print(table)


def spread(values: Sequence[float], *, digits: int = 3) -> dict[str, float]:
    """The p50, p95, p99 and largest of some measured values; empty of none."""
    if not values:
        return {}
    found = dict(zip(("p50", "p95", "p99", "max"), (*percentiles(values), max(values)), strict=True))
    return {name: round(value, digits) for name, value in found.items()}


def named(name: str, figures: dict[str, float]) -> dict[str, float]:
    """Figures of a spread as figures of their own: `name_p50` and so on."""
    return {f"{name}_{key}": value for key, value in figures.items()}


def rss_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process, from /proc."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096


def cpu_s(pid: int) -> float:
    """Seconds of a core that a process has used so far; they hardly grow when others use the machine too."""
    ticks = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def python() -> str:
    """The interpreter that runs this, for the programs that a measurement starts."""
    return sys.executable
