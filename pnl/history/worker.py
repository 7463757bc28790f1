"""The process that answers: reads questions from its input and writes answers to its output until the input ends."""

import os
import sys
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo

import duckdb
import msgspec

from pnl.errors import HistoryError
from pnl.history.duck import Duck
from pnl.history.past import Past
from pnl.history.questions import QUESTIONS
from pnl.history.wire import Answer, Opening, Question, frame, read_frame


def main() -> None:
    """Answer until nobody asks any more."""
    sys.modules["pandas"] = None  # type: ignore[assignment] # DuckDB would import it, only to see that nothing is one of its
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # whatever a library prints must not stand between two answers
        opening = read_frame(sys.stdin.buffer)
        if opening is not None:
            serve(sys.stdin.buffer, out, msgspec.msgpack.decode(opening, type=Opening))


def serve(questions: BinaryIO, answers: BinaryIO, opening: Opening) -> None:
    """Answer each question with what is known at that moment."""
    duck = Duck()
    past = Past(duck, Path(opening.path), opening.kind, ZoneInfo(opening.zone), opening.counted)
    decoder = msgspec.msgpack.Decoder(Question)
    while (body := read_frame(questions)) is not None:
        answers.write(frame(answer(past, decoder.decode(body))))
        answers.flush()


def answer(past: Past, question: Question) -> Answer:
    """One answer, or why there is none."""
    past.duck.slow.clear()
    try:
        past.catch_up()
        value = QUESTIONS[question.kind](past, **question.values)
    except HistoryError as error:
        return Answer(error=str(error))
    except duckdb.Error as error:
        return Answer(error=f"the history cannot be read: {str(error).splitlines()[0]}")
    return Answer(value, slow=list(past.duck.slow))


if __name__ == "__main__":
    main()
