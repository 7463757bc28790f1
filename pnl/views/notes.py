"""A person's notes: as pins for the equity plot, and as a list."""

from collections.abc import Iterable, Mapping
from datetime import UTC, tzinfo
from typing import Any

import panel as pn
from markupsafe import Markup
from panel.viewable import Viewable, Viewer

from pnl.errors import StoreError
from pnl.notes import Note, Notes
from pnl.rows import to_ms
from pnl.stream.present import local_ms
from pnl.views.lines import as_cells, as_lines
from pnl.views.verdict import asset, rendered

MOST_ROWS = 200
UNREADABLE = "The notes cannot be read; `pnl note list` says why."  # its own words name a path of this machine


def note_columns(notes: Iterable[Note], zone: tzinfo) -> dict[str, list[Any]]:
    """Notes as columns of a plot, in the order given.

    Args:
        notes: As `Notes.all` gives them.
        zone: The reporting time zone.

    Returns:
        `t` (float, local ms since the epoch, like every plot's), `number` and `text` (str, the text hostile).
    """
    notes = list(notes)
    return {
        "t": [local_ms(to_ms(note.at), zone) for note in notes],
        "number": [f"{note.number}" for note in notes],
        "text": [note.text for note in notes],
    }


class NoteTexts:
    """The texts about the notes, made anew only for other notes; another process may write them."""

    def __init__(self, notes: Notes, zone: tzinfo) -> None:
        self._notes = notes
        self._zone = zone
        self._made_for: tuple[Note, ...] | None = None
        self._texts: dict[str, str] = {}

    def texts(self) -> dict[str, str]:
        """Every text by name, always the same names."""
        try:
            found, error = self._notes.all(), ""
        except StoreError:
            found, error = self._made_for or (), UNREADABLE
        if found is not self._made_for or self._texts["notes.error"] != error:
            self._texts, self._made_for = note_fields(found, self._zone, error=error), found
        return self._texts


def note_fields(notes: Iterable[Note], zone: tzinfo, *, error: str = "") -> dict[str, str]:
    """The texts about notes by name; the newest 200 become rows of number, local time and text, newest first."""
    newest = sorted(notes, key=lambda note: (note.at, note.number), reverse=True)
    rows = ((f"{n.number}", f"{n.at.astimezone(zone):%Y-%m-%d %H:%M}", n.text) for n in newest[:MOST_ROWS])
    rest = len(newest) - MOST_ROWS
    return {
        "notes.rows": as_lines(rows),
        "notes.count": f"{len(newest):,}",
        "notes.more": f"and {rest:,} older" if rest > 0 else "",
        "notes.error": error,
    }


def notes_html(fields: Mapping[str, str], *, can_write: bool = False) -> Markup:
    """The list with these texts, all of them escaped; with a form for another one if somebody hears of it."""
    return rendered("notes.html", f=fields, rows=as_cells(fields["notes.rows"]), can_write=can_write)


class NotesView(Viewer):
    """The notes in a notebook cell or an app of one's own; follows them as far as this process looks at them."""

    def __init__(self, notes: Notes, *, zone: tzinfo = UTC) -> None:
        super().__init__()
        self._texts = NoteTexts(notes, zone)
        self._pane = pn.pane.HTML(self._html(), sizing_mode="stretch_width")
        notes.watch(self._show)

    def _show(self) -> None:
        self._pane.object = self._html()

    def _html(self) -> str:
        styles = f"<style>{asset('page.css')}{asset('notes.css')}</style>"
        return f"{styles}<div class='pnl'>{notes_html(self._texts.texts())}</div>"

    def __panel__(self) -> Viewable:
        return self._pane
