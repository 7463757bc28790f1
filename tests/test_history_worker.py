"""The process that answers may die, hang or be asked by many: each question gets its own answer, or an error."""

import asyncio
import os
import select
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
import pytest_asyncio
from recording import KIND, at_ms, record, recorded, snapshot, writing

from pnl.errors import HistoryDown, HistoryError
from pnl.history.client import SHARED_ANSWERS, History
from pnl.history.monitor import KEPT_SLOW, KEPT_TIMES, QueryMonitor
from pnl.history.wire import Counted, Opening, Question, frame
from pnl.store import Change

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one worker for many questions

START_MS = 1_795_000_000_000
LONGEST_S = 60


def changes(count, since=0):
    return [Change(snapshot(START_MS + n * 1000, n)) for n in range(since, since + count)]


def asking(path, **changed):
    return History(path, **{"kind": KIND, "zone": "America/New_York", "deadline_s": LONGEST_S} | changed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def path(tmp_path_factory):
    """Give the file of a store with a hundred seconds."""
    return await recorded(tmp_path_factory.mktemp("hundred"), *changes(100))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def history(path):
    """Give its history, whose worker may have died in the test before."""
    async with asking(path) as history:
        yield history


async def is_right(history):
    """Ask for things that differ from each other, and look at each answer."""
    seconds, month, last, fees = await asyncio.gather(
        history.bars(bucket="1s"),
        history.bars(bucket="1mo"),
        history.snapshot_at(at_ms(START_MS + 41_500), ()),
        history.bars(bucket="1s", column="kalshi_fees"),
    )
    return (
        seconds.close.tolist() == list(range(100))
        and (month.bucket, month.count.tolist()) == ("1mo", [100])
        and last.taken_at == at_ms(START_MS + 41_000)
        and fees.close.tolist() == [0] * 100
    )


async def running(history):
    """Have a worker and return its process."""
    await history.bars()
    return history.pid


async def until_asked(history):
    """Let others run until a question is with the worker, however far."""
    while not history._worker._turn.locked():  # noqa: ASYNC110 - nothing tells; it takes some turns of the loop
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)


def workers():
    """Give the command lines of the workers that this process has started and that live."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children]
    return [line for line in lines if b"pnl.history.worker" in line]


def ended(pidfd, timeout_s):
    """Whether a process ends in so many seconds."""
    return bool(select.select([pidfd], [], [], timeout_s)[0])


async def test_a_worker_that_was_killed_between_two_questions_is_started_anew(history):
    """Nobody notices."""
    before = await running(history)

    os.kill(before, signal.SIGKILL)

    assert await is_right(history)
    assert history.pid != before


async def test_an_interrupt_from_the_keyboard_is_not_for_the_worker(history):
    """A terminal, and a notebook's server, send it to the whole group of processes."""
    worker = await running(history)

    assert os.getpgid(worker) != os.getpgrp()


async def test_a_worker_that_dies_in_the_middle_of_a_question_is_asked_again(history, caplog):
    """The one who asks gets the answer, from another process; the log tells."""
    before = await running(history)
    os.kill(before, signal.SIGSTOP)  # so that the question is surely not answered yet
    question = asyncio.create_task(history.bars(bucket="1s"))
    await until_asked(history)

    os.kill(before, signal.SIGKILL)

    assert (await question).close.tolist() == list(range(100))
    assert "ended in the middle of a question (bars)" in caplog.text
    assert await is_right(history)
    assert history.pid != before


async def test_a_question_of_which_the_worker_dies_twice_is_an_error(path):
    """It is not asked for ever, and the next one gets its answer."""
    async with asking(path) as history:
        before = await running(history)
        os.kill(before, signal.SIGSTOP)
        question = asyncio.create_task(history.bars(bucket="1s"))
        await until_asked(history)
        os.kill(before, signal.SIGKILL)
        while history.pid in (before, None):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0)

        os.kill(history.pid, signal.SIGKILL)

        with pytest.raises(HistoryDown, match=r"died twice of one question \(bars\)"):
            await question
        assert await is_right(history)


async def test_a_worker_that_hangs_is_given_up_after_the_deadline(history, monkeypatch):
    """Whoever waits is told what to do; the next question has a new worker, and the old one is gone."""
    before = await running(history)
    pidfd = os.pidfd_open(before)
    os.kill(before, signal.SIGSTOP)
    with monkeypatch.context() as short:
        short.setattr(history._worker, "_deadline_s", 0.05)
        with pytest.raises(HistoryDown, match=r"no answer about the history within 0\.05 s \(bars\); ask again in a"):
            await history.bars()

    assert await is_right(history)
    assert history.pid != before
    assert ended(pidfd, LONGEST_S)
    os.close(pidfd)


async def test_only_the_process_that_reads_what_is_recorded_has_longer_for_its_first_answer(path, monkeypatch):
    """The time limit of a person's own SQL holds from the first question on."""
    async with asking(path) as history:
        for worker in (history._worker, history._console):
            monkeypatch.setattr(worker, "_deadline_s", 0)

        assert len(await history.bars()) > 0
        with pytest.raises(HistoryDown, match=r"within 0 s \(sql\)"):
            await history.sql("SELECT 1")
        with pytest.raises(HistoryDown, match=r"within 0 s \(bars\)"):
            await history.bars(bucket="1s")


async def test_a_question_that_waits_for_its_turn_has_the_same_deadline(history, monkeypatch):
    """Nobody waits for ever behind others, and one that only waited takes the worker from nobody."""
    before = await running(history)
    async with history._worker._turn:
        with monkeypatch.context() as short:
            short.setattr(history._worker, "_deadline_s", 0.05)
            with pytest.raises(HistoryDown, match="no answer"):
                await history.bars()

    assert await is_right(history)
    assert history.pid == before


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 20])
async def test_a_question_that_is_cancelled_breaks_none_after_it(history, turns):
    """Wherever it is: its answer is never taken for the next one's."""
    await running(history)
    question = asyncio.create_task(history.bars(bucket="1s", column="total_costs"))
    for _ in range(turns):
        await asyncio.sleep(0)

    question.cancel()
    with suppress(asyncio.CancelledError):
        await question

    assert await is_right(history)


async def test_a_question_that_is_cancelled_while_its_worker_starts_breaks_none_after_it(path):
    """No process is left behind either."""
    async with asking(path) as history:
        for turns in (1, 2, 4, 8, 16, 64):
            question = asyncio.create_task(history.bars(bucket="1s"))
            for _ in range(turns):
                await asyncio.sleep(0)
            question.cancel()
            with pytest.raises(asyncio.CancelledError):
                await question

        assert await is_right(history)
        assert len(workers()) <= 2  # this one's, and the module's


async def test_the_same_question_is_asked_once_until_something_is_committed(path):
    """A hundred pages share one answer; with the next version it is another."""
    version = [1]
    async with asking(path, version=lambda: version[0]) as history:
        found = await asyncio.gather(*(history.bars(bucket="1s") for _ in range(100)))
        assert {tuple(bars.close.tolist()) for bars in found} == {tuple(range(100))}
        assert history.queries.timings()["bars"].count == 1

        await asyncio.gather(history.bars(bucket="1m"), history.bars(bucket="1s", column="kalshi_fees"), history.bars())
        assert history.queries.timings()["bars"].count == 4

        version[0] = 2
        await asyncio.gather(*(history.bars(bucket="1s") for _ in range(100)))
        assert history.queries.timings()["bars"].count == 5


async def test_answers_that_nobody_asks_for_any_more_are_let_go(path):
    """Every commit makes all answers old: what is kept of them stays small however many commits there are."""
    version = iter(range(SHARED_ANSWERS + 9))
    async with asking(path, version=lambda: next(version)) as history:
        for _ in range(SHARED_ANSWERS + 9):
            await history.bars(bucket="1s")

        assert history.shared.memory.evictions == 9


async def test_an_answer_that_is_shared_is_never_an_old_one(tmp_path):
    """Append, wait for the commit, ask: it is there, also while the same question was asked a moment before."""
    commits = 0
    async with writing(tmp_path / "data") as store, asking(store.path, version=lambda: commits) as history:
        for n in range(20):
            await record(store, *changes(1, since=n))
            commits += 1

            found = await asyncio.gather(*(history.bars(bucket="1s") for _ in range(3)))

            assert [bars.close.tolist() for bars in found] == [list(range(n + 1))] * 3


async def test_what_is_committed_behind_the_version_is_seen_by_another_question(tmp_path):
    """A commit that comes late, or moves a month into the archive, has no version of its own."""
    async with writing(tmp_path / "data") as store, asking(store.path, version=lambda: 1) as history:
        await record(store, *changes(1))
        assert (await history.bars(bucket="1m")).count.sum() == 1

        await record(store, *changes(1, since=1))

        assert (await history.bars(bucket="1m", column="kalshi_realized")).count.sum() == 2


async def test_an_error_is_shared_too_and_asked_anew_the_next_time(path):
    """Whoever asks for nonsense is told the same words, with or without a version."""
    async with asking(path, version=lambda: 1) as history:
        for _ in range(2):
            refused = await asyncio.gather(*(history.bars(bucket="2m") for _ in range(9)), return_exceptions=True)
            assert {str(error)[:31] for error in refused} == {"there is no bucket '2m'; choose"}
            assert {type(error) for error in refused} == {HistoryError}
        assert history.queries.timings()["bars"].failed == 2
        assert len(await history.bars()) == 100


async def test_one_who_stops_waiting_takes_nothing_from_the_others(path):
    """They share the question, and the first of them goes away."""
    async with asking(path, version=lambda: 1) as history:
        questions = [asyncio.create_task(history.bars(bucket="1s")) for _ in range(3)]
        await until_asked(history)

        questions[0].cancel()

        assert [(await question).close.tolist()[-1] for question in questions[1:]] == [99, 99]


async def test_closing_tells_whoever_waits_and_ends_the_worker(path):
    """Also one that hangs; what is asked afterwards is refused at once, and closing twice is closing once."""
    history = asking(path)
    pid = await running(history)
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGSTOP)
    questions = [asyncio.create_task(history.bars(bucket=bucket)) for bucket in ("1s", "1m")]
    await until_asked(history)

    await history.aclose()

    for question in questions:
        with pytest.raises(HistoryDown):
            await question
    assert ended(pidfd, LONGEST_S)
    os.close(pidfd)
    with pytest.raises(HistoryDown, match="closed"):
        await history.bars()
    await history.aclose()
    assert history.pid is None


PARENT = """
import asyncio, sys
from pathlib import Path
from pnl.history.client import SHARED_ANSWERS, History

async def main():
    history = History(Path(sys.argv[1]), kind="simulated", zone="UTC")
    print(len(await history.bars()), history.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_worker_ends_with_the_process_that_asks(path):
    """Also when that one is killed and can tell nobody."""
    pipe = asyncio.subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(path), stdout=pipe)
    bars, worker = map(int, (await parent.stdout.readline()).split())
    pidfd = os.pidfd_open(worker)
    assert bars == 100
    assert not ended(pidfd, 0)

    parent.kill()
    await parent.wait()

    assert ended(pidfd, LONGEST_S)
    os.close(pidfd)


async def test_a_worker_whose_answer_nobody_takes_ends_without_a_word(path):
    """Who asked was killed meanwhile: its log has enough to say."""
    all_of_it = {"start_ms": None, "end_ms": None, "bucket": "1h", "column": "net_pnl", "most": 1000, "filters": ()}
    asked = frame(Opening(str(path), KIND, "UTC", Counted())) + frame(Question("bars", all_of_it))
    pipe = asyncio.subprocess.PIPE
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pnl.history.worker", stdin=pipe, stdout=pipe, stderr=pipe, cwd=Path(__file__).parents[1]
    )
    worker._transport.get_pipe_transport(1).close()
    worker.stdin.write(asked)
    worker.stdin.close()

    assert await asyncio.wait_for(worker.stderr.read(), 60) == b""
    assert await worker.wait() == 0


async def test_each_kind_of_question_is_counted_and_timed(path):
    """Those that failed too; nothing is slow on a hundred rows but, perhaps, the machine."""
    async with asking(path) as history:
        for _ in range(3):
            await history.booked()
        await history.bars()
        with pytest.raises(HistoryError):
            await history.bars(column="x")

        timings = history.queries.timings()

    assert {kind: (timing.count, timing.failed) for kind, timing in timings.items()} == {
        "bars": (2, 1),
        "booked": (3, 0),
    }
    for timing in timings.values():
        assert 0 < timing.p50_ms <= timing.p95_ms <= timing.p99_ms <= timing.max_ms
        assert timing.mean_ms <= timing.max_ms


async def test_the_monitor_keeps_the_last_times_and_the_last_slow_statements():
    """Percentiles are of the last thousand; the count is of all. One time stands for every percentile."""
    monitor = QueryMonitor()
    monitor.note("booked", 7.0, failed=True)
    for n in range(KEPT_TIMES + 500):
        slow = [(f"SELECT {n}", 100.0 + n)] if n % 2 else []
        monitor.note("bars", float(n), slow=slow)

    timings = monitor.timings()

    assert list(timings) == ["bars", "booked"]
    assert (timings["booked"].count, timings["booked"].failed, timings["booked"].p99_ms) == (1, 1, 7.0)
    bars = timings["bars"]
    assert (bars.count, bars.failed, bars.max_ms) == (KEPT_TIMES + 500, 0, KEPT_TIMES + 499)
    assert (bars.mean_ms, bars.p50_ms) == (999.5, 999.5)
    assert (bars.p95_ms, bars.p99_ms) == (pytest.approx(1449.05), pytest.approx(1489.01))
    assert len(monitor.slow) == KEPT_SLOW
    assert [slow.statement for slow in monitor.slow] == [f"SELECT {n}" for n in range(1301, 1500, 2)]
    assert {slow.kind for slow in monitor.slow} == {"bars"}


async def test_what_the_worker_found_slow_is_in_the_list_and_the_log(path, monkeypatch, caplog):
    """With its statement, whatever a limit is set to; what was quick is not."""
    script = "import pnl.history.duck as duck, pnl.history.worker as worker; duck.SLOW_MS = 0.0; worker.main()"
    start = asyncio.create_subprocess_exec

    async def all_slow(program, *_arguments, **pipes):
        return await start(program, "-c", script, **pipes)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", all_slow)
    caplog.set_level("INFO")
    async with asking(path) as history:
        await history.booked()

        assert {slow.kind for slow in history.queries.slow} == {"booked"}
        assert any("FROM postings" in slow.statement for slow in history.queries.slow)
        assert all(slow.took_ms > 0 for slow in history.queries.slow)
        assert "for booked: SELECT coalesce" in caplog.text


WRITER = """
import asyncio, sys
from pathlib import Path
from pnl.store import Store
from test_history_worker import changes

async def main():
    written = 0
    async with Store(Path(sys.argv[1]), kind="simulated", commit_ms=0) as store:
        print(0, flush=True)
        ending = asyncio.get_running_loop().time() + 5.0
        while asyncio.get_running_loop().time() < ending:
            some = changes(1 + written % 7, since=written)
            await asyncio.gather(*(asyncio.wrap_future(store.append(change)) for change in some))
            written += len(some)
            print(written, flush=True)

asyncio.run(main())
"""

READER = """
import sqlite3, sys
from contextlib import closing

query = "SELECT count(*), coalesce(sum(net_pnl_micros), 0), (SELECT coalesce(sum(snapshots), 0) FROM pnl_1m), "
query += "(SELECT snapshots FROM chain) FROM pnl_snapshots"
reads = 0
for line in sys.stdin:
    with closing(sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)) as reader:
        rows, net, minutes, chain = reader.execute(query).fetchone()
    assert rows >= int(line), (rows, line)
    assert rows == minutes == chain, (rows, minutes, chain)
    assert net == rows * (rows - 1) // 2, (rows, net)
    print(rows, flush=True)
"""


async def test_three_processes_on_one_file_lose_nothing_and_see_everything(tmp_path):
    """What the writer was told is on disk is in the next answer of the worker and of a plain reader, all the time."""
    pipe, folder = asyncio.subprocess.PIPE, tmp_path / "data"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(folder), stdout=pipe, env=environment
    )
    await writer.stdout.readline()
    acknowledged, answers, reads = [0], 0, 0

    async def listen():
        while line := await writer.stdout.readline():
            acknowledged.append(int(line))

    listening = asyncio.create_task(listen())
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, str(folder / "pnl.db"), stdin=pipe, stdout=pipe
    )

    async def read():
        nonlocal reads
        while not listening.done():
            reader.stdin.write(b"%d\n" % acknowledged[-1])
            assert await reader.stdout.readline()
            reads += 1

    async with asking(folder / "pnl.db") as history:
        reading = asyncio.create_task(read())
        while not listening.done():
            least, bucket = acknowledged[-1], ("1s", "1m", "1mo")[answers % 3]
            bars = await history.bars(bucket=bucket)
            count = int(bars.count.sum())
            assert count >= least
            assert bars.close.tolist()[-1:] == [count - 1][: len(bars)]
            assert (bars.mean * bars.count).sum() <= count * (count - 1) // 2
            answers += 1
        await listening
        await reading
        reader.stdin.close()
        assert await reader.wait() == 0
        assert await writer.wait() == 0

        last = acknowledged[-1]
        assert (await history.bars(bucket="1s")).close.tolist() == list(range(last))
    with closing(sqlite3.connect(folder / "pnl.db")) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.execute("SELECT count(*), max(net_pnl_micros) FROM pnl_snapshots").fetchone() == (last, last - 1)
    assert min(answers, reads, last) > 20
