"""The dashboard and its upstreams as programs of their own, so that either can be ended at any instant."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pnl.bench.figures import cpu_s, python
from pnl.errors import PnlError, SimulatorError
from pnl.store.file import LOCK_FILE
from pnl.web.folder import app_folder

STARTED = b"Starting Bokeh server with process id"
START_S = 120.0
LOG_TAIL = 2000
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Served:
    """A dashboard that runs: its process, and where its page is."""

    process: asyncio.subprocess.Process
    address: str

    def cpu_s(self) -> float:
        """Seconds of a core that it has used so far."""
        return cpu_s(self.process.pid)

    async def end(self, number: int) -> None:
        """Send it a signal, and wait until it is gone."""
        self.process.send_signal(number)
        await self.process.wait()


@asynccontextmanager
async def dashboard(
    folder: Path,
    settings: Mapping[str, str],
    *,
    log: Path,
    program: str = "panel",
    arguments: Sequence[str] = (),
) -> AsyncIterator[Served]:
    """Run `panel serve app/` on a data folder with these settings and no others; it listens a while after.

    Args:
        folder: The data folder.
        settings: By name (`PNL_…`). The reporting time zone is UTC.
        log: Where what the program says is added.
        program: The module that is run in the place of `panel`.
        arguments: More of them for `panel serve`.
    """
    [metrics] = free_ports(1)
    ours = {"PNL_DATA_DIR": str(folder), "PNL_TIMEZONE": "UTC", "PNL_METRICS_PORT": str(metrics)}
    every = ours | dict(settings)
    async with served(app_folder(), every, log=log, program=program, arguments=arguments) as running:
        yield running


@asynccontextmanager
async def served(
    app: Path,
    settings: Mapping[str, str],
    *,
    log: Path,
    program: str = "panel",
    arguments: Sequence[str] = (),
) -> AsyncIterator[Served]:
    """Run `panel serve` on any app with these settings in its surroundings and no others; it listens a while after."""
    [port] = free_ports(1)
    command = ("-m", program, "serve", str(app), "--port", str(port), *arguments)
    with log.open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            python(), *command, cwd=log.parent, env=dict(settings), stdout=said, stderr=said
        )
    try:
        yield Served(process, f"http://localhost:{port}/{app.stem}")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def listening(server: Served, log: Path) -> None:
    """Wait until a program listens.

    Raises:
        PnlError: It ended, or took too long.
    """
    end_s = time.monotonic() + START_S
    while not _listens(log):
        if server.process.returncode is not None or time.monotonic() > end_s:
            raise PnlError(f"the server did not start; what it said last: {tail(log)}")
        await asyncio.sleep(LOOK_S)


def _listens(log: Path) -> bool:
    return STARTED in log.read_bytes()


@asynccontextmanager
async def simulator(folder: Path, *program: str) -> AsyncIterator[dict[str, str]]:
    """Run the three simulated APIs; yields the settings that point a dashboard at them.

    Args:
        folder: Where it may leave files.
        program: The module that is run in the place of `pnl simulate`, and its arguments.

    Raises:
        SimulatorError: They did not start.
    """
    command = ("-m", *(program or ("pnl.cli", "simulate", "--key-out", str(folder / "kalshi.pem"))))
    process = await asyncio.create_subprocess_exec(
        python(), *command, cwd=folder, env={}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield await asyncio.wait_for(_exports(process), START_S)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _exports(process: asyncio.subprocess.Process) -> dict[str, str]:
    """The lines `export NAME=value` that it prints first."""
    settings: dict[str, str] = {}
    while process.stdout is not None and (line := (await process.stdout.readline()).decode()).startswith("export "):
        name, _, value = line.removeprefix("export ").strip().partition("=")
        settings[name] = value
    if not settings:
        raise SimulatorError("the simulator did not start; `pnl simulate` says why")
    return settings


def collector(folder: Path) -> int | None:
    """The process that records, as its data folder's lock says, also of a dead one until another takes it."""
    return process_in((folder / LOCK_FILE).read_text(encoding="ascii"))


def process_in(holder: str) -> int | None:
    """The number of the process that a holder of a record is called by; None where it names none."""
    found = re.search(r"process (\d+)", holder)
    return None if found is None else int(found[1])


def tail(log: Path) -> str:
    """What a program said last."""
    return log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
