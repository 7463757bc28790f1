"""The notebooks run from their first cell to their last without a key, and nothing of a machine is in their files."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from recording import NOON, Bookkeeper, a_business, record, writing

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("explore", "reconcile", "latency")
OF_A_MACHINE = re.compile(r"/(home|root|Users|tmp|work|mnt)/|[A-Z]:\\\\|recorded_account")
LONGEST_S = 240
QUICK = "SECONDS = 1"


def notebook(name):
    """A notebook as it stands in the repository."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_of(read):
    return [cell for cell in read.cells if cell.cell_type == "code"]


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """A function that runs a notebook in a kernel and returns what its cells show as text."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))

    async def execute(name, *parameters):
        read = notebook(name)
        behind = read.cells.index(code_of(read)[0]) + 1
        read.cells.insert(behind, nbformat.v4.new_code_cell("\n".join((QUICK, *parameters))))
        client = NotebookClient(read, timeout=LONGEST_S, resources={"metadata": {"path": str(tmp_path)}})
        await client.async_execute()
        return "\n".join(shown(output) for cell in code_of(read) for output in cell.outputs)

    return execute


def shown(output):
    """What a reader sees of an output, whatever draws it."""
    return output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")


def test_these_are_all():
    """One that is added is checked too."""
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stripped_and_begins_with_its_parameters(name):
    """Somebody's numbers stay with them; a tool finds what it may set, and it is the demo unless it does."""
    read = notebook(name)
    first = code_of(read)[0]

    nbformat.validate(read)
    assert read.cells[0].cell_type == "markdown"
    assert first.metadata == {"tags": ["parameters"]}
    assert 'ACCOUNT = "demo"' in first.source
    assert all((cell.outputs, cell.execution_count) == ([], None) for cell in code_of(read))
    assert not OF_A_MACHINE.search((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


async def test_explore_runs_on_the_demo_and_ends_with_a_live_panel(executed, tmp_path):
    """With a figure for each question that it puts; a kernel that is shut down leaves nothing behind."""
    said = await executed("explore")

    assert re.search(r"net_usd +-?\d", said)
    assert re.search(r"all: \$\d+\.\d{4} for each of [\d,]+ fills", said)
    assert (said.count(":Bars"), said.count(":NdOverlay")) == (1, 1)
    assert "VerdictView" in said.splitlines()[-1]
    assert not list((tmp_path / "TMPDIR").iterdir())


async def test_reconcile_runs_on_the_demo(executed):
    """Its own assertions hold the totals against one another."""
    said = await executed("reconcile")

    assert re.search(r"[1-9][\d,]* markets can be told twice, 0 of them differ, by \$0.000000", said)
    assert "0 odd settlements" in said


async def test_reconcile_says_the_known_totals_of_a_recorded_account(executed, recorded_account):
    """To the last digit."""
    said = await executed("reconcile", f"ACCOUNT = {str(recorded_account)!r}")

    assert "1,246 markets can be told twice, 0 of them differ, by $0.000000" in said
    assert len(re.findall(r"-2,873\.713070 +6,129\.111630 +-9,002\.824700", said)) == 3


async def test_latency_runs_on_the_demo(executed):
    """Every row of the checklist stands there, and those of the server are measured."""
    said = await executed("latency")

    assert re.search(r"DB insert +[1-9]", said)
    assert "not measured yet" in said
    assert "breakdown" in said


async def test_a_notebook_runs_on_a_data_folder_that_is_written_to(executed, folder):
    """Beside the process that records, of which it takes nothing away."""
    async with writing(folder) as store:
        await record(store, Bookkeeper().change(NOON, a_business()))

        said = await executed("explore", f"ACCOUNT = {str(folder)!r}")

        await record(store, Bookkeeper().change(NOON.replace(hour=20), a_business()))

    assert "104.609" in said
