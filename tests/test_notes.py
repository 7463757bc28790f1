"""A note stays, whole and once, whoever writes it and whatever is killed; its text is never more than text."""

import json
import multiprocessing
import stat
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pnl.cli import main
from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import StoreError
from pnl.notes import LONGEST_TEXT, MOST_NOTES, Notes
from pnl.simulator import LivingMarket, Simulator
from pnl.simulator.demo import demo_settings
from pnl.views import NotesView
from pnl.views.lines import as_cells
from pnl.views.notes import MOST_ROWS, UNREADABLE, NoteTexts, note_columns, note_fields, notes_html
from tests.note_writer import add_many

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
ZONE = ZoneInfo("America/New_York")
HOSTILE = "<img src=x onerror=alert(1)>\"'"
LONG_S = 60


@pytest.fixture
def notes(folder):
    return Notes(folder, now=lambda: NOW)


def test_a_note_is_there_for_whoever_looks_next(notes, folder):
    """In the order of their instants; a number is given once and never again."""
    assert notes.all() == ()

    second = notes.add("changed the strategy")
    first = notes.add("first run", NOW - timedelta(days=1))
    assert notes.remove(first.number)
    third = notes.add("raised the limit", datetime(2026, 11, 22, 8, 0, tzinfo=ZONE))

    found = Notes(folder).all()
    assert [(note.number, note.at, note.text) for note in found] == [
        (3, NOW - timedelta(hours=1), third.text),
        (1, NOW, second.text),
    ]
    assert not notes.remove(2)
    assert notes.remove(3)
    assert notes.add("another").number == 4


def test_whoever_reads_the_file_reads_a_whole_one(notes, folder):
    """It is put in place, never written into: a kill at any moment leaves the old one."""
    notes.add("a")
    with (folder / "notes.json").open("rb") as old:
        notes.add("b")

        assert [note["text"] for note in json.load(old)["notes"]] == ["a"]
    assert len(notes.all()) == 2


def test_only_its_owner_can_read_the_file(notes, folder):
    """Nor what a killed process left of one."""
    folder.mkdir(mode=0o700)
    (folder / "notes.part").write_text("half of a f")

    notes.add("a")

    assert stat.S_IMODE((folder / "notes.json").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["notes.json"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  two\nlines\tand \u2028 more ", "two lines and more"),
        ("\x1b[31mred\x07", "[31mred"),
        ("\u202egnp.exe", "gnp.exe"),
        ("half \ud800 a pair", "half  a pair"),
        (HOSTILE, HOSTILE),
        ("é Ω 日本", "é Ω 日本"),
        ("x" * LONGEST_TEXT, "x" * LONGEST_TEXT),
    ],
)
def test_a_text_is_one_line_that_no_terminal_obeys(notes, folder, text, kept):
    """What is kept is what is shown."""
    assert notes.add(text).text == kept
    assert Notes(folder).all()[0].text == kept


@pytest.mark.parametrize("text", ["", " \n\t", "\x00\x1b", "x" * (LONGEST_TEXT + 1)])
def test_a_text_that_is_none_or_too_long_is_refused(notes, folder, text):
    """And nothing is written."""
    with pytest.raises(ValueError, match=r"a note (needs a text|has at most 500 characters)"):
        notes.add(text)

    assert not (folder / "notes.json").exists()


def test_an_instant_before_all_records_is_refused(notes):
    """No plot reaches there."""
    with pytest.raises(ValueError, match="after 1970"):
        notes.add("a", datetime(1, 1, 1, tzinfo=UTC))


def test_there_is_an_end_to_how_many(notes, folder):
    """Every one of them is on every page."""
    notes.add("a")
    many = [{"number": n, "at": "2026-11-22T14:00:00Z", "text": "a"} for n in range(MOST_NOTES)]
    (folder / "notes.json").write_text(json.dumps({"next_number": MOST_NOTES, "notes": many}))

    with pytest.raises(ValueError, match="there are 1,000 notes"):
        notes.add("b")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"notes": [{"number": 1}]}',
        '{"notes": [{"number": 1, "at": "2026-11-22T14:00:00", "text": "naive"}]}',
        '{"notes": [{"number": 1, "at": "2026-11-22T14:00:00Z", "text": "\\u001b[31m"}]}',
        '{"notes": [{"number": 1, "at": "2026-11-22T14:00:00Z", "text": "' + "x" * 501 + '"}]}',
    ],
)
def test_a_file_that_makes_no_sense_is_told_and_left_as_it_is(notes, folder, content):
    """Somebody may mend it; a page says so without the path, and goes on with what it had."""
    notes.add("before")
    texts = NoteTexts(notes, UTC)
    texts.texts()
    (folder / "notes.json").write_text(content)

    for change in (notes.all, lambda: notes.add("b"), lambda: notes.remove(1)):
        with pytest.raises(StoreError, match="holds no notes that this program wrote"):
            change()

    assert (folder / "notes.json").read_text() == content
    assert texts.texts()["notes.error"] == UNREADABLE
    assert "before" in texts.texts()["notes.rows"]


def test_a_folder_that_cannot_be_written_keeps_its_notes(notes, folder):
    """A note that could not be made is said to be none."""
    notes.add("a")
    (folder / "notes.part").mkdir()

    with pytest.raises(StoreError, match=r"cannot be written \(.+\); no note was changed"):
        notes.add("b")

    assert [note.text for note in notes.all()] == ["a"]


def test_who_watches_is_told_of_every_change_also_by_another_process(notes, folder):
    """Once for each, until the watching ends."""
    told = []
    end = notes.watch(lambda: told.append([note.text for note in notes.all()]))

    notes.add("a")
    Notes(folder).add("b")
    notes.all()
    notes.all()
    notes.remove(1)
    end()
    notes.add("c")

    assert told == [["a"], ["a", "b"], ["b"]]


@pytest.fixture
def processes():
    return multiprocessing.get_context("spawn")


def started(processes, folder, name, count):
    ear, mouth = processes.Pipe(duplex=False)
    process = processes.Process(target=add_many, args=(folder, name, count, mouth))
    process.start()
    return process, ear


def test_two_processes_lose_none_of_each_others_notes(folder, processes):
    """Each note is there once, with a number of its own."""
    both = [started(processes, folder, name, 25) for name in ("one", "other")]
    for process, _ear in both:
        process.join(LONG_S)

    found = Notes(folder).all()

    assert {note.text for note in found} == {f"{name} {n}" for name in ("one", "other") for n in range(25)}
    assert sorted(note.number for note in found) == list(range(1, 51))


def test_a_kill_loses_no_note_that_was_made(folder, processes):
    """The file is the old one or the new one, and the next note is made as if nothing had happened."""
    made = 0
    for name in ("a", "b"):
        process, ear = started(processes, folder, name, 10_000)
        for _ in range(7):
            assert ear.poll(LONG_S)
            made += ear.recv() >= 0
        process.kill()
        process.join(LONG_S)

        assert len(Notes(folder).all()) >= made
    assert Notes(folder).add("after").number == len(Notes(folder).all())


def test_pins_stand_at_the_wall_clock_of_the_reporting_zone(notes):
    """As every point of the plot does."""
    notes.add(HOSTILE)
    notes.add("earlier", NOW - timedelta(hours=2))

    columns = note_columns(notes.all(), ZONE)

    local = datetime(2026, 11, 22, 9, tzinfo=UTC).timestamp() * 1000
    assert columns == {"t": [local - 7_200_000, local], "number": ["2", "1"], "text": ["earlier", HOSTILE]}


def test_the_list_is_newest_first_and_cut(notes):
    """In local time; the texts are made once for the same notes."""
    texts = NoteTexts(notes, ZONE)
    empty = texts.texts()
    notes.add("a", NOW - timedelta(hours=2))
    notes.add("b")

    found = texts.texts()

    assert as_cells(found["notes.rows"]) == [["2", "2026-11-22 09:00", "b"], ["1", "2026-11-22 07:00", "a"]]
    assert (empty["notes.count"], found["notes.count"], found["notes.more"]) == ("0", "2", "")
    assert texts.texts() is found
    assert empty.keys() == found.keys()
    many = note_fields(notes.all() * MOST_ROWS, ZONE)
    assert (len(as_cells(many["notes.rows"])), many["notes.more"]) == (MOST_ROWS, "and 200 older")


def test_a_note_that_attacks_is_text(notes):
    """In the page, and in a cell of a notebook, which follows."""
    view = NotesView(notes)
    notes.add(HOSTILE)

    for html in (notes_html(note_fields(notes.all(), UTC)), view.__panel__().object):
        assert "<img" not in html
        assert html.count("&lt;img") == 1
    assert view.__panel__().get_root()


@pytest.fixture
def pnl(monkeypatch, capsys):
    """Run the command: its exit code, what it printed, and what it said beside that."""

    def run(*arguments, **settings):
        for name, value in settings.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(sys, "argv", ["pnl", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed, said = capsys.readouterr()
        return ended.value.code or 0, printed, said

    return run


async def test_a_note_of_the_command_is_in_the_dashboard_beside_it(tmp_path, pnl):
    """Whoever holds the store: it is the same folder."""
    async with Simulator(LivingMarket(days=2)) as simulator:
        settings = demo_settings(load_settings(data_dir=tmp_path), simulator)
        mine = {**simulator.settings, "PNL_TIMEZONE": "America/New_York", "PNL_DATA_DIR": settings.data_dir}
        async with Engine(settings) as engine:
            made = pnl("note", "add", HOSTILE, "--at", "2026-07-04 14:00", **mine)
            shown = NoteTexts(engine.notes, ZONE).texts()
            listed, table = pnl("note", "list", "--json"), pnl("note", "list")
            engine.notes.add("by the page")
            gone = pnl("note", "remove", "1")
            left = engine.notes.all()

    assert made == (0, "note 1, 2026-07-04 14:00\n", "")
    assert as_cells(shown["notes.rows"]) == [["1", "2026-07-04 14:00", HOSTILE]]
    assert json.loads(listed[1]) == [{"number": 1, "at": "2026-07-04T18:00:00+00:00", "text": HOSTILE}]
    assert "<img" in table[1]
    assert gone == (0, "note 1 removed\n", "")
    assert [note.text for note in left] == ["by the page"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("add", " "), "pnl: a note needs a text"),
        (("add", "a", "--at", "yesterday"), "pnl: 'yesterday' is no instant; type 2026-07-04 14:00"),
        (("add", "a", "--at", "2190-01-01"), "pnl: '2190-01-01' has not come yet"),
        (("remove", "7"), "pnl: there is no note 7; `pnl note list` shows them"),
    ],
)
def test_what_a_person_types_wrong_is_one_clear_line(folder, pnl, arguments, line):
    """And nothing is written."""
    code, printed, said = pnl("note", *arguments, PNL_DATA_DIR=folder)

    assert (code, printed, said.strip()) == (1, "", line)
    assert not list(folder.rglob("notes*"))


def test_without_a_source_a_note_is_the_demos(folder, pnl):
    """It stands where the dashboard that one sees looks for it."""
    pnl("note", "add", "tried it", PNL_DATA_DIR=folder)

    assert [note.text for note in Notes(folder / "demo").all()] == ["tried it"]
    assert [path.name for path in folder.iterdir()] == ["demo"]
    assert "no note yet" not in pnl("note", "list")[1].lower()
