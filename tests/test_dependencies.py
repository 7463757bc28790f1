"""No dependency is older than its known advisories, and the audit that asks the network says when it could not."""

import asyncio
import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]
ADVISORIES = tomllib.loads((ROOT / "tests" / "data" / "advisories.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", ADVISORIES["fixed"], ids=lambda entry: entry["package"])
def test_no_dependency_is_older_than_its_advisories(entry):
    """Neither what is installed nor what is locked; asked without a network."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    locked = [row["version"] for row in lock if row["name"] == entry["package"]]

    assert locked
    for found in (*locked, version(entry["package"])):
        assert Version(found) >= Version(entry["least"]), entry["advisories"]


def test_what_has_no_fix_is_named_in_the_audit_and_explained():
    """Each is passed over by name, and SECURITY.md tells what is done instead."""
    audit = (ROOT / ".ci" / "audit").read_text(encoding="utf-8")
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    unfixed = {advisory for entry in ADVISORIES["unfixed"] for advisory in entry["advisories"]}

    assert set(re.findall(r"--ignore-vuln (\S+)", audit)) == unfixed
    for entry in ADVISORIES["fixed"] + ADVISORIES["unfixed"]:
        assert entry["package"] in security
    assert all(advisory in security for advisory in unfixed)


@pytest.mark.parametrize(("found", "code"), [("", 0), ('"fix_versions"', 0), ('"fix_versions"', 1)])
async def test_an_audit_that_reached_nobody_says_so(tmp_path, found, code):
    """The tool itself would call it a success; and what it does find fails the run."""
    (tmp_path / "uvx").write_text(
        f"#!/bin/sh\ncase \"$*\" in *json*) echo '{found}'; exit 0;; esac\ncat > /dev/null\necho audited; exit {code}\n"
    )
    (tmp_path / "uv").write_text("#!/bin/sh\necho tornado==6.6.1\n")
    for name in ("uv", "uvx"):
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        ROOT / ".ci" / "audit", env={**os.environ, "PATH": path}, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()

    assert process.returncode == code
    assert said.decode().startswith("audited" if found else "No audit")
