"""What the README says is so: its settings are the real ones, its commands exist, its dependencies agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from pydantic_core import PydanticUndefined
from typer.main import get_command

from pnl.cli import app
from pnl.config import Settings
from pnl.model import PnLModel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONDA_NAMES = {"duckdb": "python-duckdb", "prometheus-client": "prometheus_client", "tzdata": "python-tzdata"}
FROM_PIP = {"duckdb-extension-sqlite-scanner"}  # conda-forge has none; `-e .` installs it
BEGIN, END = "<!-- settings -->", "<!-- /settings -->"


def settings_table():
    """The settings as the README shows them, from the code."""
    lines = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `PNL_{name.upper()}` | {shown_default(name, field)} | {field.description} |")
    return "\n".join(lines)


def shown_default(name, field):
    if name == "data_dir":
        return "your user data folder"
    if field.default is None or field.default is PydanticUndefined:
        return "not set"
    return f"`{field.default}`"


def quick_start():
    """The commands of the first fenced block under Quick start."""
    section = re.search(r"(?ms)^## Quick start$(.*?)(?=^## |\Z)", README)[1]
    block = re.search(r"(?ms)^```\w*\n(.*?)^```", section)[1]
    return [line for line in block.splitlines() if line.strip() and not line.startswith("#")]


def test_the_settings_table_is_the_code():
    """Run this file to write it anew: python tests/test_docs.py."""
    assert README.split(BEGIN)[1].split(END)[0].strip() == settings_table()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described_with_its_unit_or_kind(name):
    """A person can set it from its description alone."""
    assert len(Settings.model_fields[name].description) > 20


def test_the_quick_start_has_two_commands_and_ci_runs_the_second():
    """What a person runs is what is checked."""
    first, second = quick_start()

    assert first.endswith("panel serve app/ --warm")
    assert second in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", sorted(set(PnLModel.param) - {"name"}))
def test_every_parameter_of_the_model_is_documented(name):
    """Shown where a person works with it."""
    assert PnLModel.param[name].doc


@pytest.mark.parametrize("command", sorted(get_command(app).commands))
def test_every_command_is_in_the_readme_and_helps(command):
    """With what it does in its own help."""
    assert f"`pnl {command}" in README
    assert get_command(app).commands[command].help


def test_both_lists_of_dependencies_agree():
    """pyproject.toml and environment.yml ask for the same, in each one's names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.split(r"[<>=]", line)[0]: line[len(re.split(r"[<>=]", line)[0]) :] for line in project["dependencies"]}
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    conda = dict(line.split(" ") for line in listed if isinstance(line, str) and " " in line)

    assert conda.pop("python") == project["requires-python"]
    assert conda == {CONDA_NAMES.get(name, name): bounds for name, bounds in asked.items() if name not in FROM_PIP}


def test_every_dependency_is_bounded_and_used():
    """Nothing is installed for nobody."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    code = "\n".join(
        path.read_text(encoding="utf-8") for folder in ("pnl", "app") for path in (ROOT / folder).rglob("*.py")
    )
    # The zones that zoneinfo reads; a lower bound for a dependency; an extension that DuckDB loads from its folder.
    indirect = {"tzdata", "tornado", "duckdb-extension-sqlite-scanner"}

    for line in project["dependencies"]:
        name = re.split(r"[<>=]", line)[0]
        assert ">=" in line or "==" in line
        assert name in indirect or re.search(rf"^ *(from|import) {name.replace('-', '_')}\b", code, re.MULTILINE), name


if __name__ == "__main__":
    before, rest = README.split(BEGIN)
    (ROOT / "README.md").write_text(
        f"{before}{BEGIN}\n\n{settings_table()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8"
    )
