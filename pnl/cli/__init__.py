"""The `pnl` command."""

import logging
import os
from typing import Annotated, NoReturn

import typer

from pnl import __version__
from pnl.bench.commands import bench
from pnl.cli import history, numbers, serving  # noqa: F401 - each adds its commands
from pnl.cli.said import EXIT_ERROR, app, said
from pnl.errors import PnlError

app.add_typer(bench, name="bench", no_args_is_help=True)


def main() -> None:
    """Run the command; a failure that was foreseen is one line, without a traceback."""
    logging.basicConfig(level=os.environ.get("PNL_LOG_LEVEL", "WARNING"), format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except PnlError as error:
        _fail(str(error))


def _fail(text: str) -> NoReturn:
    said.print(f"pnl: {text}", style="red", markup=False, soft_wrap=True)
    raise SystemExit(EXIT_ERROR)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's own signature
    if wanted:
        print(f"pnl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    del version
