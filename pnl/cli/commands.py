"""Every command as a person sees it: options, help, examples. What it does, its module does, imported once it is asked.

So that help, completion and a mistyped option wait for no library of numbers or networks.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pnl.cli import completion
from pnl.cli.said import EVERY_DAY, FOR_DEVELOPERS, SETUP, THE_PAST, app
from pnl.history.dimensions import TERMS
from pnl.history.ranges import HELP
from pnl.terminal import AsJson, examples


@app.command(
    rich_help_panel=EVERY_DAY,
    epilog=examples("pnl serve", "pnl serve --port 8080 --show", "PNL_PASSWORD_FILE=~/.pnl-password pnl serve"),
)
def serve(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the dashboard; 0: any that is free.")] = 5006,
    address: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines reach needs a password or a proxy.")
    ] = "127.0.0.1",
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy in front asks who visitors are (PNL_BEHIND_PROXY).")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Open the dashboard in a browser.")] = False,
) -> None:
    """Serve the dashboard, for this machine alone unless told otherwise.

    It runs `panel serve` on the app, warmed up, with the options that this project recommends. With nothing set it
    shows the demo; with PNL_PASSWORD_FILE set it asks for that password. Runs until it is stopped (Ctrl+C).
    """
    from pnl.cli import serving

    serving.serve(port=port, address=address, behind_proxy=behind_proxy, show=show)


@app.command(rich_help_panel=EVERY_DAY, epilog=examples("pnl snapshot", "pnl snapshot --json | jq -r .net_pnl"))
def snapshot(*, as_json: AsJson = False) -> None:
    """Pull every configured source once, print the numbers, record them.

    Needs one source or more. Ends with 0 when the numbers are complete, 3 when a part is missing (it is named), 1 when
    there are none. Beside a running dashboard on the same data folder it records nothing: the dashboard does.
    """
    from pnl.cli import numbers

    raise typer.Exit(numbers.snapshot(as_json=as_json))


@app.command(rich_help_panel=EVERY_DAY, epilog=examples("pnl sync", "pnl sync --json > synced.json"))
def sync(*, as_json: AsJson = False) -> None:
    """Backfill all history into the data folder; safe to repeat and to interrupt.

    Needs one source or more. What was read before is not read again, and what comes twice changes nothing. Ends like
    `pnl snapshot`, and prints the same JSON.
    """
    from pnl.cli import numbers

    raise typer.Exit(numbers.sync(as_json=as_json))


Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", help="Only a part: series=KXBTCD, source=kalshi, weekday=1; repeated, all must hold."),
]
Within = Annotated[str, typer.Option("--range", help=f"Which time: {HELP}.", autocompletion=completion.ranges)]


@app.command(
    rich_help_panel=THE_PAST,
    epilog=examples(
        "pnl history --range ytd",
        "pnl history --bucket 1h --from 2026-07-01 --to 2026-07-04",
        "pnl history --bucket 1m --format parquet --out minutes.parquet",
    ),
)
def history(
    *,
    bucket: Annotated[
        str,
        typer.Option(
            help="1s, 10s, 1m, 5m, 15m, 1h, 1d, 1w or 1mo; days and longer in PNL_TIMEZONE.",
            autocompletion=completion.buckets,
        ),
    ] = "1d",
    from_: Annotated[str, typer.Option("--from", help="Where to begin: 2026-07, 2026-07-04, 2026-07-04T09:30.")] = "",
    to: Annotated[str, typer.Option(help="Where to end, a named day or month included; default: now.")] = "",
    within: Within = "",
    column: Annotated[
        str, typer.Option(help=f"Which money: {', '.join(completion.MONEY_FIELDS)}.", autocompletion=completion.columns)
    ] = "net_pnl",
    form: Annotated[
        Literal["csv", "json", "parquet"], typer.Option("--format", help="Parquet is no text and needs --out.")
    ] = "csv",
    out: Annotated[Path | None, typer.Option(help="File to write; without it, the output.")] = None,
) -> None:
    """Bars of the P&L over any range: bucket_start, open, high, low, close, count.

    Needs what was recorded (`pnl sync`, or the dashboard). What was before the first snapshot is rebuilt from the
    records, without open P&L. Money is exact in every format.
    """
    from pnl.cli import history as past

    past.history(bucket=bucket, within=past.named_range(within, from_, to), column=column, form=form, out=out)


@app.command(
    rich_help_panel=THE_PAST,
    epilog=examples("pnl period", "pnl period --range 2026-Q3 --by series", "pnl period --range month-1 --json"),
)
def period(
    *,
    within: Within = "mtd",
    by: Annotated[
        str | None, typer.Option(help=f"Its parts by {', '.join(completion.PARTS)}.", autocompletion=completion.parts)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a period made, beside the one before it: P&L, fees, costs, revenue, and the deepest falls.

    Needs what was recorded. The parts of a period sum to it, to the last digit.
    """
    from pnl.cli import history as past

    past.period(within, by, as_json=as_json)


@app.command(
    rich_help_panel=THE_PAST,
    epilog=examples(
        "pnl ledger --range 7d",
        "pnl ledger --range 2026-07 --filter series=KXBTCD --out july.xlsx",
        "pnl ledger --term fees --format csv > fees.csv",
    ),
)
def ledger(
    *,
    within: Within = "all",
    filters: Filters = None,
    term: Annotated[str, typer.Option(help=f"Rows with a share in {', '.join(TERMS)}.")] = "net",
    search: Annotated[str, typer.Option(help="Rows with this text.")] = "",
    form: Annotated[
        Literal["table", "csv", "json", "xlsx", "parquet"] | None,
        typer.Option("--format", help="Without it, as the name of --out ends, or a table."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; without it, the output.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many rows a table shows; a file has all.")] = 50,
) -> None:
    """What each fill, settlement, cost and deal did to the P&L: the newest as a table, all of them as a file.

    Needs what was recorded. Money is exact in every format.
    """
    from pnl.cli import ledger as rows

    rows.ledger(within=within, filters=filters or [], term=term, search=search, form=form, out=out, limit=limit)


@app.command(
    rich_help_panel=THE_PAST,
    epilog=examples(
        "pnl report --range month-1 --out october.html",
        "pnl report --from 2026-07 --to 2026-09 --hide-amounts",
        "pnl report --range 30d --filter series=KXBTCD --out -",
    ),
)
def report(
    *,
    from_: Annotated[str, typer.Option("--from", help="Where to begin: 2026-07, 2026-07-04, 2026-07-04T09:30.")] = "",
    to: Annotated[str, typer.Option(help="Where to end, a named day or month included; default: now.")] = "",
    within: Within = "",
    out: Annotated[
        Path | None, typer.Option(help="File to write, in the place of one that is there; -: the output.")
    ] = None,
    title: Annotated[str, typer.Option(help="What stands above it.")] = "",
    hide_amounts: Annotated[
        bool, typer.Option("--hide-amounts", help="Leave out every amount; shapes and percentages stay.")
    ] = False,
    filters: Filters = None,
) -> None:
    """Write a report of a period: one HTML file that opens without a network, prints well and can be sent.

    Needs what was recorded. This month unless told. Its totals are those of `pnl period` and the page, to the last
    digit; what is missing is said in it.
    """
    from pnl.cli import history as past
    from pnl.cli import report as written

    chosen = past.named_range(within, from_, to) if within or from_ or to else "mtd"
    written.report(within=chosen, out=out, title=title, hides=hide_amounts, filters=filters or [])


@app.command(
    "migrate-store",
    rich_help_panel=SETUP,
    epilog=examples("PNL_STORE_URL=postgresql://user:password@host/pnl pnl migrate-store"),
)
def migrate_store() -> None:
    """Copy all that is recorded in the data folder into the database of PNL_STORE_URL, and compare it.

    Stop the dashboard first. The database has to be empty; it gets all or nothing, so that it is safe to interrupt and
    to repeat. The file in the data folder stays as it is.
    """
    from pnl.cli import moving

    moving.migrate_store()


@app.command(
    rich_help_panel=THE_PAST,
    epilog=examples(
        'pnl sql "SHOW TABLES"',
        'pnl sql "SELECT ticker, count(*) FROM kalshi_trades GROUP BY 1"',
        'pnl sql --json "SELECT day, sum(amount_usd::DECIMAL) FROM anthropic_costs GROUP BY 1"',
    ),
)
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT, of DuckDB's SQL, over the store's tables.")],
    *,
    rows: Annotated[int, typer.Option(min=1, help="The most rows to show.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long it may take.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Ask the store in SQL, for reading only.

    Needs what was recorded. Money is in micro-dollars, instants in ms (snapshots) or µs since 1970.
    """
    from pnl.cli import history as past

    past.sql(query, rows=rows, seconds=seconds, as_json=as_json)


@app.command(rich_help_panel=SETUP, epilog=examples("pnl share", "pnl share --expires 12h", "pnl share --revoke"))
def share(
    *,
    expires: Annotated[str, typer.Option(help="When it ends: 30m, 12h, 7d, 4w; at most a year.")] = "7d",
    hide_amounts: Annotated[
        bool, typer.Option("--hide-amounts", help="Refused: a page cannot keep amounts from who holds a link to it.")
    ] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="End every link there is, and make none.")] = False,
) -> None:
    """Make a link to the dashboard for somebody who is only to look: a viewer, without a password, for a while.

    Prints the path to put behind the dashboard's address. Links are not kept, and end by themselves; `--revoke` ends
    all of them at once, also in pages that are open. Needs PNL_PASSWORD_FILE, and the data folder of the dashboard.
    """
    from pnl.cli import share as shared

    if revoke:
        shared.revoke()
    else:
        shared.share(expires, hides=hide_amounts)


@app.command(rich_help_panel=SETUP, epilog=examples("pnl doctor", "pnl doctor --offline", "pnl doctor --json"))
def doctor(
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no source anything.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at settings, keys, sources, files and records, and say what to do about what is wrong.

    Each configured source is tried with one small request that only reads; nothing is changed and no secret shown. Ends
    with 0 when all is well, 1 when a check failed.
    """
    from pnl.cli import checkup

    raise typer.Exit(checkup.doctor(offline=offline, as_json=as_json))


note = typer.Typer(help="Notes pinned to instants, shown on the equity plot: add, list, remove.")
app.add_typer(
    note,
    name="note",
    no_args_is_help=True,
    rich_help_panel=THE_PAST,
    epilog=examples('pnl note add "changed the strategy"', "pnl note list"),
)


@note.command(epilog=examples('pnl note add "changed the strategy"', 'pnl note add "outage" --at "2026-07-04 14:00"'))
def add(
    text: Annotated[str, typer.Argument(help="What to remember, at most 500 characters.")],
    *,
    at: Annotated[str, typer.Option(help="When, in PNL_TIMEZONE: 2026-07-04 14:00; now unless given.")] = "",
) -> None:
    """Pin a note to an instant. A running dashboard shows it at once."""
    from pnl.cli import notes

    notes.add(text, at)


@note.command(name="list", epilog=examples("pnl note list", "pnl note list --json"))
def list_notes(*, as_json: AsJson = False) -> None:
    """Print every note with its number, oldest first."""
    from pnl.cli import notes

    notes.show(as_json=as_json)


@note.command(epilog=examples("pnl note remove 3"))
def remove(number: Annotated[int, typer.Argument(help="The note's number, as `pnl note list` prints it.")]) -> None:
    """Take a note away, for good; ends with 1 when there is none of this number."""
    from pnl.cli import notes

    raise typer.Exit(notes.remove(number))


@app.command(
    rich_help_panel=FOR_DEVELOPERS,
    epilog=examples(
        "pnl simulate --key-out kalshi.pem",
        "pnl simulate --account recorded_account --speed 3600",
    ),
)
def simulate(
    *,
    account: Annotated[
        Path | None, typer.Option(help="Serve a recorded account: a folder with fills.csv and settlements.csv.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(min=0, help="Replay the account at this speed; without it, all of it is there.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which living market to serve when there is no account.")] = 1,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Loopback port; 0: any that is free.")] = 0,
    key_out: Annotated[Path | None, typer.Option(help="Where to write the private key (mode 0600).")] = None,
) -> None:
    """Serve the three APIs on loopback: a living market, or a recorded account.

    Prints the settings that point `pnl` at it, in a form that a shell can read, and runs until it is stopped (Ctrl+C).
    The keys are made up; nothing in there is real money.
    """
    from pnl.cli import serving

    serving.simulate(account=account, speed=speed, seed=seed, port=port, key_out=key_out)
