"""Another process that makes notes, for the tests; it imports no more than it needs, as it starts anew each time."""

from pnl.notes import Notes


def add_many(folder, name, count, mouth):
    """Make notes as fast as they can be made, and say of each that it is on disk."""
    notes = Notes(folder)
    for number in range(count):
        notes.add(f"{name} {number}")
        mouth.send(number)
