"""What `pnl` teaches: help that fits a terminal, examples that work, completion, and no wait for any of it."""

import asyncio
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pnl.bench.commands import MEASUREMENTS
from pnl.cli import app, completion
from pnl.history.dimensions import DIMENSIONS
from pnl.history.ranges import PRESETS
from pnl.terminal import pass_time, progress_bars

PNL = Path(sys.executable).with_name("pnl")
COMMANDS = sorted(set(get_command(app).commands) - {"bench"})
HELPED = [(), ("bench",), *((name,) for name in COMMANDS), *(("bench", name) for name in MEASUREMENTS)]


def helped(*command):
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def examples():
    """Yield each line that a command's help shows, with the command that it is of."""
    group = get_command(app)
    bench = group.commands["bench"]
    known = {name: group.commands[name] for name in COMMANDS} | {
        f"bench {name}": bench.get_command(None, name) for name in MEASUREMENTS
    }
    for name, command in known.items():
        yield from ((name, line) for line in command.epilog.splitlines() if line.startswith(("pnl", "PNL_")))


@pytest.mark.parametrize("command", HELPED, ids=" ".join)
def test_help_fits_eighty_columns(command):
    """And says in its first lines what the command is for."""
    assert all(len(line) <= 80 for line in helped(*command).splitlines())


def test_the_commands_are_listed_by_what_they_are_for():
    """What one needs every day comes first."""
    told = helped()

    places = [told.index(panel) for panel in ("Every day", "The past", "Setup", "For developers", "First steps")]
    assert places == sorted(places)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_on_a_line_of_its_own(name):
    """One that is run into the next cannot be copied."""
    lines = [line.strip() for line in helped(name).splitlines()]

    shown = [line for of, line in examples() if of == name]
    assert shown
    assert all(line in lines or len(line) > 76 for line in shown)


@pytest.mark.parametrize(("name", "line"), list(examples()))
def test_every_example_is_understood(name, line):
    """Its command and each of its options exist and take such a value."""
    words = shlex.split(line.split(" | ")[0].split(" > ")[0])
    words = words[words.index("pnl") + 1 :]
    group = get_command(app)
    command = group.commands[words[0]]
    if words[0] in {"bench", "note"}:
        command, words = command.get_command(None, words[1]), words[1:]

    context = command.make_context(name, words[1:])

    assert context.params or not command.params


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("snyc",), "Did you mean 'sync'?"),
        (("history", "--bukket", "1d"), "Possible options: --bucket"),
        (("sql",), "Try 'pnl sql --help'"),
        (("history", "--format", "xml"), "'csv'"),
        (("bench", "lod"), "No such command 'lod'"),
    ],
)
def test_a_mistyped_command_is_told_what_to_type(words, says):
    """On the error output, and it ends with 2."""
    done = subprocess.run(
        [PNL, *words], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_help_and_completion_wait_for_no_library_of_numbers_or_networks():
    """They are imported by the command that needs them, once it is asked."""
    heavy = {"pydantic", "aiohttp", "numpy", "pandas", "duckdb", "msgspec", "cryptography", "bokeh", "panel", "sqlite3"}

    done = subprocess.run(
        [sys.executable, "-c", "import sys, pnl.cli; print(*sys.modules)"], capture_output=True, text=True, check=True
    )

    assert heavy & set(done.stdout.split()) == set()


def completed(line):
    """What bash is offered behind a line."""
    words = {"_PNL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": f"{len(line.split(' ')) - 1}"}
    done = subprocess.run(
        [PNL],
        capture_output=True,
        text=True,
        env={**os.environ, **words},
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pnl do", ["doctor"]),
        ("pnl history --range mo", ["month-1"]),
        ("pnl period --range m", ["mtd", "month-1"]),
        ("pnl history --bucket 1m", ["1m", "1mo"]),
        ("pnl history --column kalshi_r", ["kalshi_realized"]),
        ("pnl period --by we", ["weekday"]),
        ("pnl history --format p", ["parquet"]),
    ],
)
def test_the_shell_completes_commands_and_values(line, offered):
    """By the machinery that `--install-completion` sets up."""
    assert completed(line) == offered


def test_what_is_offered_is_what_there_is():
    """Every preset of a range, and every breakdown."""
    assert set(PRESETS) <= {name for name, _ in completion.RANGES}
    assert set(completion.PARTS) == set(DIMENSIONS)


def test_completion_can_be_installed(tmp_path):
    """For the shell that asks, in the person's own folder."""
    command = f"{shlex.quote(str(PNL))} --install-completion; true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}, check=True
    )

    assert "completion installed" in done.stdout
    [script] = tmp_path.rglob("*pnl*.sh")
    assert "_PNL_COMPLETE=complete_bash" in script.read_text()


def test_where_nobody_watches_there_are_no_bars(capfd):
    """A log holds what was said, not how far it was."""
    with progress_bars() as progress:
        progress.update(progress.add_task("reading", total=2), advance=1)
    asyncio.run(pass_time(0.01, "waiting"))

    assert capfd.readouterr() == ("", "")
