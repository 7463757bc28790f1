"""The application that all commands belong to, and where its help lists them."""

import typer

EVERY_DAY, THE_PAST, SETUP, FOR_DEVELOPERS = "Every day", "The past", "Setup", "For developers"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # with it, a paragraph fills the lines of the terminal that shows it
    add_completion=True,
)
