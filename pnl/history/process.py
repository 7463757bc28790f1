"""The worker's process: started when it is asked, given up after a deadline, started anew when it died or hangs."""

import asyncio
import logging
import os
import sys
from contextlib import suppress

import msgspec

from pnl.config import inherited_by_children
from pnl.errors import HistoryDown
from pnl.history.wire import LENGTH, Answer, Opening, Question, frame

DEADLINE_S = 10.0
ATTEMPTS = 2

log = logging.getLogger(__name__)


class Worker:
    """One worker that is asked one question after the other.

    Args:
        opening: What it is told first.
        deadline_s: Seconds within which every question is answered or fails, the wait for its turn included.
        first_s: The least that it has for the first answer of a process.
    """

    def __init__(self, opening: Opening, *, deadline_s: float = DEADLINE_S, first_s: float = 0) -> None:
        self._opening = opening
        self._deadline_s = deadline_s
        self._first_s = first_s
        self._worker: asyncio.subprocess.Process | None = None
        self._killed: list[asyncio.subprocess.Process] = []
        self._has_answered = False
        self._is_closed = False
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Its process, None while there is none."""
        return None if self._worker is None else self._worker.pid

    async def aclose(self) -> None:
        """Stop it; whoever waits for an answer is told."""
        self._is_closed = True
        self._abandon()
        async with self._turn:
            await self._bury()

    def kill(self) -> None:
        """Stop it, from a callback of a loop that will not run again; blocks until it is gone."""
        worker = self._worker
        self._is_closed = True
        with suppress(ChildProcessError, ProcessLookupError):  # it had ended by itself
            self._abandon()
            if worker is not None and worker.returncode is None:
                os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)

    async def start(self) -> None:
        """Have its process begin to load what it needs, before anybody asks."""
        async with self._turn:
            await self._running()

    async def ask(self, question: Question, *, deadline_s: float | None = None) -> Answer:
        """Ask, and ask once more if the worker dies of it; one that hangs is killed."""
        deadline_s = self._deadline_s if deadline_s is None else deadline_s
        if not self._has_answered:
            deadline_s = max(deadline_s, self._first_s)
        try:
            async with asyncio.timeout(deadline_s):
                async with self._turn:
                    return await self._exchange(question)
        except TimeoutError:
            raise HistoryDown(
                f"no answer about the history within {deadline_s:g} s ({question.kind}); "
                "ask again in a moment, or for a shorter range"
            ) from None

    async def _exchange(self, question: Question) -> Answer:
        await self._bury()
        for attempt in range(1, ATTEMPTS + 1):
            worker = await self._running()
            try:
                answer = await _converse(worker, question)
            except (asyncio.IncompleteReadError, OSError):
                log.warning("the process for the history ended in the middle of a question (%s)", question.kind)
                self._abandon()
                await self._bury()
                if attempt == ATTEMPTS:
                    what = f"the process for the history died twice of one question ({question.kind})"
                    raise HistoryDown(what) from None
            except BaseException:  # cancelled or out of time: its answer would be taken for the next question's
                self._abandon()
                raise
            else:
                self._has_answered = True
                return answer
        raise AssertionError

    def _abandon(self) -> None:
        """Kill the worker: it holds nothing that could be lost."""
        worker, self._worker = self._worker, None
        self._has_answered = False
        if worker is not None:
            if worker.returncode is None:
                worker.kill()
            self._killed.append(worker)

    async def _bury(self) -> None:
        """Wait until the workers that were killed are gone."""
        while self._killed:
            worker = self._killed.pop()
            if worker.stdin is not None and worker.stdout is not None:
                worker.stdin.close()
                await worker.stdout.read()
            await worker.wait()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._is_closed:
            raise HistoryDown("the history is closed")
        if self._worker is None or self._worker.returncode is not None:
            self._abandon()
            pipe = asyncio.subprocess.PIPE
            command = (sys.executable, "-m", "pnl.history.worker")
            # In a group of its own: Ctrl-C, and a notebook's interrupt, are for whoever asks.
            self._worker = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, process_group=0, env=inherited_by_children()
            )
            _write(self._worker, self._opening)
        if self._is_closed:  # meanwhile
            self._abandon()
            await self._bury()
            raise HistoryDown("the history is closed")
        return self._worker


async def _converse(worker: asyncio.subprocess.Process, question: Question) -> Answer:
    if worker.stdin is None or worker.stdout is None:
        raise OSError("no pipe")
    _write(worker, question)
    await worker.stdin.drain()
    [length] = LENGTH.unpack(await worker.stdout.readexactly(LENGTH.size))
    return msgspec.msgpack.decode(await worker.stdout.readexactly(length), type=Answer)


def _write(worker: asyncio.subprocess.Process, message: msgspec.Struct) -> None:
    if worker.stdin is not None:
        worker.stdin.write(frame(message))
