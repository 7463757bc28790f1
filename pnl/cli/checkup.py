"""What the doctor finds, as tables or as one JSON object."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pnl import __version__
from pnl.config import Settings, load_settings
from pnl.doctor import Finding, Mark, examine
from pnl.terminal import EXIT_COMPLETE, EXIT_ERROR, plain, print_json, said

LONGEST_NAME = 27  # of a setting

SIGNS = {Mark.OK: "✓", Mark.WARNING: "!", Mark.FAILED: "✗", Mark.SKIPPED: "–"}
STYLES = {Mark.OK: "green", Mark.WARNING: "yellow", Mark.FAILED: "red", Mark.SKIPPED: "dim"}


def doctor(*, offline: bool, as_json: bool) -> int:
    """Print what is found; returns the exit code, which is an error's as soon as one check failed.

    Raises:
        ConfigError: The settings cannot be read at all.
    """
    findings = asyncio.run(_all(load_settings(), offline=offline))
    if as_json:
        print_json(_json(findings))
    else:
        _show(Console(), findings)
    return EXIT_ERROR if _count(findings, Mark.FAILED) else EXIT_COMPLETE


async def _all(settings: Settings, *, offline: bool) -> list[Finding]:
    with said.status("looking"):
        return [finding async for finding in examine(settings, offline=offline)]


def _json(findings: Sequence[Finding]) -> dict[str, object]:
    counts = {mark.value: _count(findings, mark) for mark in Mark}
    return {"version": __version__, **counts, "checks": [asdict(finding) for finding in findings]}


def _show(console: Console, findings: Sequence[Finding]) -> None:
    for group, some in groupby(findings, key=lambda finding: finding.group):
        console.print(_table(group, some))
    console.print(_summary(findings))


def _table(group: str, findings: Iterable[Finding]) -> Table:
    table = Table(title=group, title_justify="left", show_header=False, box=None, expand=True, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(max_width=LONGEST_NAME, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    table.add_column(no_wrap=True, justify="right")
    for finding in findings:
        sign = f"[{STYLES[finding.mark]}]{SIGNS[finding.mark]}[/]"
        style = "dim" if finding.origin == "default" else None
        table.add_row(sign, _text(finding.name), "\n".join(_lines(finding)), _aside(finding), style=style)
    return table


def _lines(finding: Finding) -> Iterator[str]:
    yield _text(finding.said)
    if finding.advice:
        yield f"→ {_text(finding.advice)}"


def _aside(finding: Finding) -> str:
    return finding.origin if finding.took_ms is None else f"{finding.took_ms:,.0f} ms"


def _text(text: str) -> str:
    return escape(plain(text))


def _summary(findings: Sequence[Finding]) -> str:
    failed, odd = _count(findings, Mark.FAILED), _count(findings, Mark.WARNING)
    if failed:
        return f"\n[red]✗ {failed} of {len(findings)} checks failed[/], {odd} warnings"
    return f"\n[green]✓ nothing failed[/] ({len(findings)} checks, {odd} warnings)"


def _count(findings: Iterable[Finding], mark: Mark) -> int:
    return sum(finding.mark is mark for finding in findings)
