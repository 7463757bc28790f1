"""The process that answers: reads questions from its input and writes answers to its output until the input ends."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import duckdb
import msgspec

from pnl.errors import HistoryError
from pnl.history.console import Console
from pnl.history.duck import Duck
from pnl.history.ledger_export import write_ledger
from pnl.history.past import Past
from pnl.history.questions import QUESTIONS
from pnl.history.wire import Answer, Opening, Question, frame, read_frame

log = logging.getLogger(__name__)

type Answerer = Callable[[Question], Mapping[str, Any]]


def main() -> None:
    """Answer until nobody asks any more."""
    os.umask(0o077)
    sys.modules["pandas"] = None  # type: ignore[assignment] # DuckDB would import it, only to see that nothing is one of its
    with suppress(BrokenPipeError), os.fdopen(os.dup(1), "wb") as out:  # who asked was killed before it had its answer
        os.dup2(2, 1)  # whatever a library prints must not stand between two answers
        opening = read_frame(sys.stdin.buffer)
        if opening is not None:
            serve(sys.stdin.buffer, out, msgspec.msgpack.decode(opening, type=Opening))


def serve(questions: BinaryIO, answers: BinaryIO, opening: Opening) -> None:
    """Answer each question with what is known at that moment."""
    duck = Duck(opening.database)
    answer = ROOMS[opening.room](duck, opening)
    decoder = msgspec.msgpack.Decoder(Question)
    while (body := read_frame(questions)) is not None:
        answers.write(frame(_answered(duck, answer, decoder.decode(body))))
        answers.flush()


def _past(duck: Duck, opening: Opening) -> Answerer:
    past = Past(duck, Path(opening.path), opening.kind, ZoneInfo(opening.zone), opening.counted)

    def answer(question: Question) -> Mapping[str, Any]:
        past.catch_up(question.version)
        try:
            return QUESTIONS[question.kind](past, **question.values)
        except duckdb.Error:
            past.forget()  # a database may have gone away and come back
            raise

    return answer


def _console(duck: Duck, opening: Opening) -> Answerer:
    opened: list[Console] = []

    def answer(question: Question) -> Mapping[str, Any]:
        if not opened:
            opened.append(Console(duck, Path(opening.path), opening.kind))
        return opened[0].sql(**question.values)

    return answer


def _files(duck: Duck, opening: Opening) -> Answerer:
    return lambda question: write_ledger(duck, ZoneInfo(opening.zone), **question.values)


ROOMS: Mapping[str, Callable[[Duck, Opening], Answerer]] = {"past": _past, "console": _console, "files": _files}


def _answered(duck: Duck, answer: Answerer, question: Question) -> Answer:
    """One answer, or why there is none."""
    duck.slow.clear()
    try:
        value = msgspec.Raw(msgspec.msgpack.encode(answer(question)))
    except HistoryError as error:
        return Answer(error=str(error))
    except duckdb.Error as error:
        return Answer(error=f"the history cannot be read: {str(error).splitlines()[0]}")
    except Exception:
        log.exception("a question of the kind %s cannot be answered", question.kind)
        return Answer(error="something unforeseen went wrong with the history; the log of the program has the details")
    return Answer(value, slow=list(duck.slow))


if __name__ == "__main__":
    main()
