"""What the commands for a person's notes do: note add, note list, note remove."""

from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pnl.config import Settings, load_settings
from pnl.errors import ConfigError
from pnl.notes import Note, Notes
from pnl.simulator.demo import shown_folder
from pnl.terminal import EXIT_COMPLETE, EXIT_ERROR, plain, print_json, remark
from pnl.views.period import parse_instant


def add(text: str, at: str) -> None:
    """Pin a note to an instant.

    Raises:
        ConfigError: The text is empty or too long, or the instant is none.
    """
    settings = load_settings()
    try:
        moment = parse_instant(at, zone=settings.zone, now=datetime.now(UTC))
        made = _notes(settings).add(text, moment)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    print(f"note {made.number}, {_when(made, settings)}")


def show(*, as_json: bool) -> None:
    """Print every note."""
    settings = load_settings()
    found = _notes(settings).all()
    if as_json:
        print_json([{"number": note.number, "at": note.at.isoformat(), "text": note.text} for note in found])
        return
    table = Table("number", "at", "note", caption=settings.timezone)
    for each in found:
        table.add_row(f"{each.number}", _when(each, settings), escape(plain(each.text)))
    Console().print(table if found else 'No note yet; make one with: pnl note add "changed the strategy"')


def remove(number: int) -> int:
    """Take a note away; returns how the command ends."""
    if not _notes(load_settings()).remove(number):
        remark(f"there is no note {number}; `pnl note list` shows them")
        return EXIT_ERROR
    print(f"note {number} removed")
    return EXIT_COMPLETE


def _notes(settings: Settings) -> Notes:
    return Notes(shown_folder(settings))


def _when(made: Note, settings: Settings) -> str:
    return f"{made.at.astimezone(settings.zone):%Y-%m-%d %H:%M}"
