"""A PostgreSQL server of the tests' own: in a temporary folder, on a free port, killed at will."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import psycopg

DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def find() -> Path | None:
    """Folder with `initdb` and `postgres`; None where PostgreSQL is not installed."""
    known = [Path(each).resolve().parent for each in [shutil.which("initdb")] if each]
    return next((each for each in [*known, *DEBIAN] if (each / "initdb").exists()), None)


def owner() -> dict[str, int]:
    """Whom the server runs as: PostgreSQL refuses to be root."""
    if os.getuid() != 0:
        return {}
    names = [entry.pw_name for entry in pwd.getpwall()]
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid}


class Server:
    """A server that can be killed and started again on the same data."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.data, self.binaries = folder / "data", binaries
        self.data.mkdir(mode=0o700)
        self.owner = owner()
        if self.owner:
            os.chown(self.data, self.owner["user"], self.owner["group"])
        self._run("initdb", "-D", self.data, "-U", "tide", "--auth=trust", "--no-sync")
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://tide@127.0.0.1:{self.port}/postgres"

    def _run(self, name: str, *arguments: object) -> None:
        command = [self.binaries / name, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd=self.data, **self.owner)

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with (self.data / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.data, *options],
                stdout=log,
                stderr=log,
                cwd=self.data,
                **self.owner,
            )
        give_up = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.data / "log").read_text()
                assert time.monotonic() < give_up, "PostgreSQL does not answer"
                time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)  # immediate shutdown: no checkpoint, no goodbyes
        self.process.wait(30)
