"""What all commands have in common: the application that they belong to, and how they speak."""

import typer
from rich.console import Console

EXIT_COMPLETE, EXIT_ERROR, EXIT_PARTIAL = 0, 1, 3

app = typer.Typer(
    help="One live number you can trust: Kalshi trading − Anthropic cost + revenue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
said = Console(stderr=True, highlight=False)
