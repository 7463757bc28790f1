"""The makers' own SDKs accept every reply of the simulator; run with PNL_SDK_TESTS=1, since they are fetched."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pnl.simulator import LivingMarket, RecordedAccount, Simulator

HERE = Path(__file__).parent
RECORDING = Path(__file__).parents[2] / "shared" / "recorded_account"
SDKS = {"kalshi": "kalshi-python-sync==3.34.0", "anthropic": "anthropic>=2.10,<3", "stripe": "stripe>=16,<17"}

pytestmark = pytest.mark.skipif(os.environ.get("PNL_SDK_TESTS") != "1", reason="set PNL_SDK_TESTS=1 to fetch the SDKs")


@pytest.fixture(scope="session")
def python():
    """The path of a Python 3.13, which Kalshi's SDK asks for; uv alone does not look into pyenv's versions."""
    for command in (["uv", "python", "find", "--no-python-downloads", "3.13"], ["pyenv", "prefix", "3.13"]):
        if shutil.which(command[0]) is None:
            continue
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            path = Path(found.stdout.strip())
            return str(path / "bin" / "python" if path.is_dir() else path)
    pytest.skip("no Python 3.13 on this machine")


@pytest.fixture(params=["living", "recorded"])
def world(request):
    if request.param == "living":
        return LivingMarket(seed=1)
    if not RECORDING.is_dir():
        pytest.skip("the shared folder with the recording is absent")
    return RecordedAccount(RECORDING)


async def check(sdk, python, *arguments):
    """What the check of that SDK printed; it fails when a model refuses a reply, and skips when it cannot be had."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    run = ["uv", "run", "--no-project", "--python", python, "--with", SDKS[sdk], "python"]
    started = await asyncio.create_subprocess_exec(*run, "-c", "", stderr=asyncio.subprocess.PIPE)
    _, complaint = await started.communicate()
    if started.returncode:
        pytest.skip(f"{SDKS[sdk]} cannot be had: {complaint.decode()[-200:]}")
    script = str(HERE / "sdk" / f"{sdk}_check.py")
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    started = await asyncio.create_subprocess_exec(*run, script, *arguments, **pipes)
    printed, complaint = await started.communicate()
    assert started.returncode == 0, complaint.decode()[-3000:]
    return json.loads(printed)


@pytest.mark.parametrize("key_type", ["rsa", "ed25519"])
async def test_the_kalshi_sdk_accepts_every_row_of_every_page(world, python, key_type):
    """Its models are strict: one missing field or one integer for a string is an error. It never waits after a 429."""
    async with Simulator(world, key_type=key_type, limited=False) as sim:
        read = await check("kalshi", python, sim.kalshi_url, sim.key_id, str(sim.private_key_path))

    assert read["fills"] > 0
    assert read["settlements"] > 0
    assert read["single replies"] == 6
    if isinstance(world, RecordedAccount):
        assert read["fills"] + read["archived fills"] == 5329
        assert read["settlements"] == read["markets"] == 2938


async def test_the_anthropic_sdk_accepts_every_report_strictly(world, python):
    """Both header styles, all widths and groups, all pages."""
    async with Simulator(world) as sim:
        read = await check("anthropic", python, sim.anthropic_url, sim.admin_key, "30")

    assert all(read.values()) == isinstance(world, LivingMarket)


async def test_the_stripe_sdk_pages_through_all_transactions(world, python):
    """In fives, with has_more and starting_after."""
    async with Simulator(world) as sim:
        read = await check("stripe", python, sim.stripe_url, sim.john_token)

    assert (read["rows"] > 20) == isinstance(world, LivingMarket)
