"""Rows of a table as one text that the page's script puts into cells, as text, and back."""

from collections.abc import Iterable, Mapping, Sequence


def as_lines(rows: Iterable[Sequence[str]]) -> str:
    """A line for each row, tabs between the cells; no text from outside makes two cells or two rows of one."""
    return "\n".join("\t".join(" ".join(cell.split()) for cell in row) for row in rows)


def isolated(text: str) -> str:
    """Text from outside that leaves the direction of what stands beside it alone, however it is written."""
    return text if text.isascii() else f"\u2068{text.replace('\u2069', '')}\u2069"


def in_slots(texts: Mapping[str, str], name: str, count: int) -> dict[str, str]:
    """The same texts with the first lines of one each as a text of its own, `name.0` and on: only what changes is sent.

    Args:
        texts: By name.
        name: Of the text that is taken apart.
        count: How many slots there are; those behind the last line are empty.
    """
    rows = texts[name].split("\n")
    slots = {f"{name}.{n}": rows[n] if n < len(rows) else "" for n in range(count)}
    return {key: text for key, text in texts.items() if key != name} | slots


def as_cells(lines: str) -> list[list[str]]:
    """The cells of each row of such a text, for a template that escapes them."""
    return [line.split("\t") for line in lines.split("\n")] if lines else []
