"""The `pnl` command."""

import logging
import os
from typing import Annotated, NoReturn

import typer

from pnl import __version__
from pnl.bench.commands import bench
from pnl.cli import commands  # noqa: F401 - it adds its commands
from pnl.cli.said import FOR_DEVELOPERS, app
from pnl.errors import PnlError
from pnl.terminal import EXIT_ERROR, examples, plain, said

app.add_typer(bench, name="bench", no_args_is_help=True, rich_help_panel=FOR_DEVELOPERS)


def main() -> None:
    """Run the command; a failure that was foreseen is said without a traceback."""
    logging.basicConfig(level=os.environ.get("PNL_LOG_LEVEL", "WARNING"), format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except PnlError as error:
        _fail(str(error))


def _fail(text: str) -> NoReturn:
    said.print(f"pnl: {plain(text)}", style="red", markup=False, soft_wrap=True)
    raise SystemExit(EXIT_ERROR)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's own signature
    if wanted:
        print(f"pnl {__version__}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "panel serve app/     # a demo: made-up numbers, nothing to set",
        "pnl doctor           # what is set, what is missing, what is wrong",
        "pnl sync             # read everything once",
        "pnl serve            # the dashboard",
        "pnl COMMAND --help   # what it needs, with examples",
        title="First steps",
    )
)
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """One live number you can trust: Kalshi trading − Anthropic cost + revenue.

    Settings come from the environment (`PNL_…`), else from a file `pnl.toml` beside you; the README lists them.
    """
    del version
