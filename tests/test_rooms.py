"""Imports inside pnl/ point one way along the data path, and nobody reads the environment but config."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pnl"
ROOMS = [
    "errors",
    "records",
    "ledger",
    "schema",
    "rows",
    "reconcile",
    "journal",
    "config",
    "notes",
    "metrics",
    "cache",
    "sources",
    "store",
    "history",
    "model",
    "follower",
    "alerts",
    "stream",
    "views",
    "report",
    "engine",
    "web",
    "doctor",
    "simulator",
    "terminal",
    "notebook",
    "bench",
    "cli",
]


def imported_rooms(tree):
    """Yield the rooms that a file names in an absolute import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "pnl":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pnl."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("pnl."))


def backward_imports(package):
    """List each import that points against the order of the rooms."""
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for other in imported_rooms(ast.parse(path.read_text(encoding="utf-8"))):
            if room in ROOMS and other in ROOMS and ROOMS.index(other) > ROOMS.index(room):
                yield f"{path.relative_to(package)} imports {other}"


def test_every_import_points_back_towards_the_source():
    """The order of the rooms is the way of the data."""
    assert list(backward_imports(PACKAGE)) == []


def test_every_module_is_in_a_known_room():
    """A new room has to find its place in the order."""
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}

    assert rooms - {"__init__", "__pycache__", "py.typed"} == set(ROOMS)


def test_an_import_against_the_order_is_found(tmp_path):
    """The check itself can fail."""
    (tmp_path / "ledger.py").write_text("from pnl.store import Store\n")

    assert list(backward_imports(tmp_path)) == ["ledger.py imports store"]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_only_config_reads_the_environment(path):
    """Settings come in by one door; the command's log level is the one thing needed before it opens."""
    source = path.read_text(encoding="utf-8")

    if path.name != "config.py" and path.parent.name != "cli":
        assert "environ" not in source
        assert "getenv" not in source


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_unpickles(path):
    """What lies on disk is data, never code."""
    names = set(imported_names(ast.parse(path.read_text(encoding="utf-8"))))

    assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def imported_names(tree):
    """Yield the first part of every imported module's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
