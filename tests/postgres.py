"""A real PostgreSQL for the tests: Debian's server in a temporary folder, on a Unix socket."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

START_S = 60
STOP_S = 60


class NoServerError(RuntimeError):
    """Neither is a server named, nor can one be started here; says why."""


def find_programs() -> Path:
    """The folder of `initdb` and `postgres`: of the newest version that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda p: int(p.parts[-3]),
        reverse=True,
    )
    if found:
        return found[0].parent
    config = shutil.which("pg_config")
    if config is not None:
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True)
        folder = Path(said.stdout.strip())
        if (folder / "initdb").exists():
            return folder
    initdb = shutil.which("initdb")
    if initdb is not None:
        return Path(initdb).resolve().parent
    raise NoServerError("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")


class Server:
    """A server that can be stopped and started again, with its data kept."""

    def __init__(self) -> None:
        programs = find_programs()
        # Not below pytest's folder: that is closed to other users, and too long for a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="shiftwatch-pg-"))
        self._as_user = self._choose_user()
        self._postgres = [
            str(programs / "postgres"),
            *("-D", f"{self.folder}/data", "-k", str(self.folder)),
            *("-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50"),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        done = subprocess.run(
            [
                *(str(programs / "initdb"), "-D", f"{self.folder}/data", "--no-sync"),
                *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"),
            ],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_S,
            **self._as_user,
        )
        if done.returncode:
            self.remove()
            raise NoServerError(f"initdb failed: {done.stdout[-500:]}{done.stderr[-500:]}")

    def _choose_user(self) -> dict[str, Any]:
        """The server refuses to run as root."""
        if os.geteuid() != 0:
            return {}
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                user = pwd.getpwnam(name)
                os.chown(self.folder, user.pw_uid, user.pw_gid)
                return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        raise NoServerError("no user to run PostgreSQL as: neither postgres nor nobody exists")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._postgres, cwd=self.folder, stdout=output, stderr=output, **self._as_user
            )
        until = time.monotonic() + START_S
        engine = sa.create_engine(self.url("postgres"), poolclass=sa.NullPool)
        while True:
            try:
                engine.connect().close()
            except sa.exc.OperationalError as error:
                said = (self.folder / "server.log").read_text(errors="replace")[-800:]
                if self._process.poll() is not None:
                    code = self._process.returncode
                    raise NoServerError(f"the server ended with {code}: {said}") from error
                if time.monotonic() > until:
                    raise NoServerError(f"no answer within {START_S} s: {said}") from error
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop this process, and no other; SIGINT ends transactions, SIGQUIT is a crash."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=STOP_S)
        self._process = None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def new_database(server: str, encoding: str = "UTF8") -> Iterator[str]:
    """The URL of an empty database that exists for the block, on the server with this URL."""
    name = f"shiftwatch_test_{uuid4().hex[:12]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        )
    yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
