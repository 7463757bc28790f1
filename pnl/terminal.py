"""How commands speak: the output is for what was asked for, all else goes beside it, and `--json` means one object."""

import asyncio
import json
from math import ceil
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, ProgressColumn

EXIT_COMPLETE, EXIT_ERROR, EXIT_PARTIAL = 0, 1, 3
LOOKS_PER_S = 4

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

said = Console(stderr=True, highlight=False)
"""Progress and remarks go here, so that what a program reads from the output stays clean."""


def examples(*lines: str, title: str = "Examples") -> str:
    """The end of a command's help, in Markdown: lines that can be typed as they are."""
    return "\n".join([f"**{title}**", "```text", *lines, "```"])


def print_json(found: Any) -> None:
    """Print one JSON object; its money is text already."""
    print(json.dumps(found, indent=2))


def remark(text: str) -> None:
    """Say a line that is worth a second look, beside the output."""
    said.print(f"pnl: {plain(text)}", style="yellow", markup=False, soft_wrap=True)


def progress_bars(*columns: ProgressColumn) -> Progress:
    """Bars beside the output that are gone in the end; none where nobody watches."""
    return Progress(*columns, console=said, transient=True, disable=not said.is_terminal)


async def pass_time(seconds: float, what: str) -> None:
    """Wait, with a bar that shows how much of it is over."""
    looks = ceil(seconds * LOOKS_PER_S)
    with progress_bars() as progress:
        for _ in progress.track(range(looks), description=what):
            await asyncio.sleep(seconds / looks)


def plain(text: str) -> str:
    """A text from outside without what a terminal would obey: a title may hold the codes that move its cursor."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)
