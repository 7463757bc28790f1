"""Where messages go to in a test: a server that really listens."""

import asyncio
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

CANARY = "canary-4711"


class Inbox:
    """A server that takes messages, or does with them what it is told to."""

    def __init__(self):
        self.messages, self.answers, self.asked = [], [], asyncio.Event()

    async def take(self, request):
        self.messages.append(await request.json())
        self.asked.set()
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "never":
            await asyncio.Event().wait()
        headers = {"Location": f"http://127.0.0.1:{request.url.port}/elsewhere"}
        return web.Response(status=answer, headers=headers if answer == 307 else {})

    @property
    def titles(self):
        return [message["title"] for message in self.messages]


@asynccontextmanager
async def listening():
    """An inbox, and the address that leads to it."""
    inbox = Inbox()
    app = web.Application()
    app.router.add_post("/{tail:.*}", inbox.take)
    async with TestServer(app) as server:
        yield inbox, SecretStr(f"json://127.0.0.1:{server.port}/{CANARY}?rto=1")
