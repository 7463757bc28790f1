"""DuckDB as it comes, over an attached SQLite file: what a history is compared with, in a process of its own."""

import json
import sys
import time
from pathlib import Path

from pnl.history.duck import Duck

QUERY = """
    SELECT timestamp // {width} AS bucket, arg_min(net_pnl_micros, timestamp), max(net_pnl_micros),
        min(net_pnl_micros), arg_max(net_pnl_micros, timestamp), count(*)
    FROM store.pnl_snapshots WHERE timestamp >= {start} AND timestamp < {end} GROUP BY 1 ORDER BY 1
"""


def main(path: str) -> None:
    """Time each question of the input, a JSON line each: `width`, `start` and `end` in ms; prints ms."""
    duck = Duck()
    duck.attach(Path(path), "simulated")
    duck.rows("SET sqlite_disable_multithreaded_scans = false")  # as it comes
    for line in sys.stdin:
        began = time.perf_counter()
        duck.columns(QUERY.format(**json.loads(line)))
        print((time.perf_counter() - began) * 1000, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
