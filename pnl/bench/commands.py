"""The measurements as commands of `pnl bench`."""

import typer

from pnl.bench.cache import cache
from pnl.bench.chaos import chaos
from pnl.bench.kill import kill
from pnl.bench.soak import soak

bench = typer.Typer(help="Measure this program here, beside what it is compared with.", no_args_is_help=True)
for command in (cache, chaos, kill, soak):
    bench.command()(command)
