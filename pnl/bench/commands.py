"""The measurements as commands of `pnl bench`; each is imported when it is asked for: no other command waits for it."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from pnl.terminal import examples

MEASUREMENTS = ("cache", "chaos", "history", "kill", "latency", "ledger", "load", "pixel", "quickwins", "soak")


class Measurements(TyperGroup):
    """Finds the command `pnl bench NAME` in the module of that name."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All there are."""
        del ctx
        return list(MEASUREMENTS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The one of this name; None if there is none."""
        if cmd_name not in MEASUREMENTS:
            return super().get_command(ctx, cmd_name)
        one = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        command = f"pnl bench {cmd_name}"
        one.command(epilog=examples(command, f"{command} --json > {cmd_name}.json"))(
            getattr(import_module(f"pnl.bench.{cmd_name}"), cmd_name)
        )
        return get_command(one)


bench = typer.Typer(cls=Measurements, rich_markup_mode="markdown")


@bench.callback()
def _measure() -> None:
    """Measure this program here, beside what it is compared with.

    Each makes a world of its own on loopback and touches no data folder of yours.
    """
