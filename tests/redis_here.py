"""A real Redis server for tests."""

import os

import pytest

from pnl.bench.redis_server import NoRedis, RedisServer
from pnl.cache.link import connect


async def started(folder, **options):
    """A server that answers; whoever asks for it kills it."""
    server = RedisServer(folder, **options)
    try:
        await server.start()
    except NoRedis as missing:
        (pytest.fail if "CI" in os.environ else pytest.skip)(str(missing))
    return server


async def asked(server, *words):
    """What the server says to a command."""
    client = connect(server.url)
    try:
        return await client.execute_command(*words)
    finally:
        await client.aclose()
