"""What lies in deploy/: run where its program is on this machine, and looked at where it is not (Docker)."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from fnmatch import fnmatch

import pytest
import pytest_asyncio
import yaml
from aiohttp import ClientError, ClientSession
from browsing import ROOT, free_port, number_moves, opened, served, until
from playwright.async_api import expect

from pnl.config import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEPLOY = ROOT / "deploy"
PASSWORD = "long enough to be one"
METRIC = re.compile(r"\b(?:pnl_\w+|process_\w+|up)\b")


def required(program):
    """Where a program is; a test that needs one that is not here is skipped, and CI has all of them."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"{program} is not installed here")
    return path


@asynccontextmanager
async def running(*command):
    """A program, until it is no longer needed; what it says gathers in `said`."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.said = []

    async def keep():
        async for line in process.stdout:
            process.said.append(line.decode())

    keeping = asyncio.create_task(keep())
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await keeping


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def dashboard(tmp_path_factory):
    """The demo as a viewer of Compose runs it; the page's address and the port of its metrics."""
    port = free_port()
    settings = {"PNL_PASSWORD": PASSWORD, "PNL_BEHIND_PROXY": "true", "PNL_METRICS_PORT": str(port)}
    async with served(tmp_path_factory.mktemp("deploy"), **settings) as (_process, address):
        yield address, port


# --- Prometheus and Grafana


def expressions():
    """Each question that the dashboard and the alert rules ask, by where it stands."""
    panels = json.loads((DEPLOY / "grafana" / "pnl.json").read_text(encoding="utf-8"))["panels"]
    [group] = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    asked = {f"{panel['title']} {t['refId']}": t["expr"] for panel in panels for t in panel["targets"]}
    return asked | {rule["alert"]: rule["expr"] for rule in group["rules"]}


async def asked_of(client, path, **query):
    """What Prometheus answers; None while it does not."""
    try:
        async with client.get(f"/api/v1/{path}", params=query) as answer:
            return await answer.json(content_type=None)
    except (ClientError, ValueError):
        return None


async def test_every_question_of_the_dashboard_and_the_alerts_is_answered_by_prometheus(dashboard, tmp_path):
    """It has scraped the running program: each of them parses, and names nothing that is not measured."""
    prometheus, port = required("prometheus"), free_port()
    scraped = {"job_name": "pnl", "static_configs": [{"targets": [f"127.0.0.1:{dashboard[1]}"]}]}
    config = {
        "global": {"scrape_interval": "1s"},
        "rule_files": [str(DEPLOY / "alerts.yml")],
        "scrape_configs": [scraped],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    options = (f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb")
    asked = {where: text.replace("$__rate_interval", "1m") for where, text in expressions().items()}
    names = {name for text in asked.values() for name in METRIC.findall(text)}

    async with (
        running(prometheus, *options, f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
        ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        known = set()

        async def all_are_known():
            found = await asked_of(client, "label/__name__/values")
            known.update((found or {}).get("data", ()))
            return names <= known

        try:
            await until(all_are_known)
        except TimeoutError:
            pytest.fail(f"not measured: {sorted(names - known)}")
        answers = {where: await asked_of(client, "query", query=text) for where, text in asked.items()}
        up = await asked_of(client, "query", query='up{job="pnl"}')
        judged = await asked_of(client, "rules")

    assert len(asked) > 25
    assert {where: answer for where, answer in answers.items() if answer["status"] != "success"} == {}
    assert [sample["value"][1] for sample in up["data"]["result"]] == ["1"]
    assert [rule["health"] for rule in judged["data"]["groups"][0]["rules"] if rule["health"] == "err"] == []


@pytest.mark.parametrize(("what", "file"), [("config", "prometheus.yml"), ("rules", "alerts.yml")])
async def test_promtool_finds_nothing_wrong(what, file):
    """In the files as they are."""
    found = subprocess.run((required("promtool"), "check", what, DEPLOY / file), capture_output=True, check=False)  # noqa: ASYNC221

    assert found.returncode == 0, found.stderr


# --- nginx


def nginx_conf(folder, backend, port):
    """Our configuration with this machine's addresses in the place of the containers'."""
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for of_container, here in (
        ("viewer:5006", f"127.0.0.1:{backend}"),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("/tmp/nginx.pid", f"{folder}/nginx.pid"),  # noqa: S108 - what stands there
    ):
        assert text.count(of_container) == 1
        text = text.replace(of_container, here)
    path = folder / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return path


async def test_a_page_follows_through_nginx_which_counts_who_asks_too_often(browser, dashboard, tmp_path):
    """Login, websocket, the cookie that keeps a page with its viewer; metrics stay inside, links out of the log."""
    nginx, port = required("nginx"), free_port()
    conf = nginx_conf(tmp_path, re.search(r":(\d+)/", dashboard[0])[1], port)
    checked = subprocess.run((nginx, "-t", "-q", "-c", conf), capture_output=True, text=True, check=False)  # noqa: ASYNC221
    assert (checked.returncode, checked.stderr) == (0, "")
    origin = f"http://localhost:{port}"

    async with running(nginx, "-c", conf, "-g", "daemon off;") as process, opened(browser) as page:
        async with ClientSession() as client:

            async def status(path):
                async with client.get(f"http://127.0.0.1:{port}{path}", allow_redirects=False) as answer:
                    return answer.status

            async def answers():
                try:
                    return await status("/healthz") == 200
                except ClientError:
                    return False

            await until(answers)
            assert [await status(path) for path in ("/metrics", "/readyz")] == [404, 404]
            assert await status("/share/viewer.1.secret-of-a-link") == 403
            await page.goto(f"{origin}/app")
            await page.locator("#password").fill(PASSWORD)
            await page.get_by_role("button", name="Log in").click()
            await number_moves(page)
            assert "pnl_node" in {cookie["name"] for cookie in await page.context.cookies()}
            often = await asyncio.gather(*(status("/healthz") for _ in range(150)))
            assert 429 in often
        await expect(page.locator("p.lost")).to_be_empty()
    said = "".join(process.said)
    assert "/share/- 403" in said
    assert "secret-of-a-link" not in said


# --- systemd


async def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    """Only the program itself is another one here: ours is not installed."""
    unit = (DEPLOY / "pnl.service").read_text(encoding="utf-8")
    (tmp_path / "pnl.service").write_text(unit.replace("/opt/pnl/bin/pnl", sys.executable))
    command = (required("systemd-analyze"), "verify", "--man=no", tmp_path / "pnl.service")
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: ASYNC221

    assert (found.returncode, found.stderr) == (0, "")
    assert {"DynamicUser=yes", "ProtectSystem=strict", "StateDirectory=pnl"} <= set(unit.splitlines())
    assert settings_in(unit) <= known_settings()


# --- Docker, which is not here: looked at, not run


def known_settings():
    return {f"PNL_{name.upper()}" for name in Settings.model_fields}


def settings_in(text):
    """Every setting that a file sets, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return set(re.findall(r"\bPNL_\w+", "\n".join(lines)))


COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", ["compose.yaml", "env.example", "Dockerfile"])
async def test_every_setting_of_the_containers_is_one(file):
    """A name that the program does not know would be ignored in silence."""
    found = settings_in((DEPLOY / file).read_text(encoding="utf-8"))

    assert found
    assert found <= known_settings()


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
async def test_a_service_names_only_what_there_is(name):
    """Files that are mounted, volumes, secrets, networks, other services; its image has a version."""
    service = COMPOSE["services"][name]
    mounted = [volume.split(":")[0] for volume in service.get("volumes", ())]

    assert [path for path in mounted if path.startswith(".") and not (DEPLOY / path).is_file()] == []
    assert {volume for volume in mounted if not volume.startswith(".")} <= set(COMPOSE["volumes"])
    assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])
    assert "build" in service or re.search(r":v?\d+\.\d+", service["image"])
    assert service.get("profiles", []) == {"redis": ["redis"], "postgres": ["machines"]}.get(name, [])


async def test_the_image_is_pinned_small_and_runs_as_nobody_special():
    """Two stages of one version, a user with a number, a question to /healthz, and no file that is not there."""
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    bases = [rest.split()[0] for step, rest in steps if step == "FROM"]
    copied = [word for step, rest in steps if step == "COPY" and "--from" not in rest for word in rest.split()[:-1]]

    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", bases[0])
    assert [step for step, _ in steps].index("USER") < [step for step, _ in steps].index("ENTRYPOINT")
    assert next(rest for step, rest in steps if step == "USER") == "1000:1000"
    assert "/healthz" in next(rest for step, rest in steps if step == "HEALTHCHECK")
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert [path for path in copied if not any(fnmatch(path, pattern) for pattern in kept)] == []
