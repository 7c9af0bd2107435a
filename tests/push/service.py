"""The example service under uvicorn: a process that can be killed."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tests import harness
from tests.pages import ROOT

LOCKED_SECONDS = 60.0


class Service:
    def __init__(self, folder: Path, data: Path | None = None) -> None:
        """`data` is where its database is, if not in the folder."""
        self.folder = folder
        self.port = harness.free_port()
        self.file = (data or folder) / "payments.db"
        self.secret = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/payments"

    def start(self) -> None:
        where = ["--app-dir", str(ROOT / "examples/webhooks"), "--port", str(self.port)]
        with (self.folder / "payments.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "payments:app", *where, "--log-level", "error"],
                cwd=self.folder,
                env={**os.environ, "PAYMENTS": str(self.file), "PUSH_SECRETS": self.secret, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def booked(self) -> tuple[int, int]:
        """How many payments, and the sum of their cents."""
        found: tuple[int, int]
        found = self._ask("select count(*), coalesce(sum(cents), 0) from payments")[0] if self._has_table() else (0, 0)
        return found

    def message_ids(self) -> set[str]:
        return {id_ for (id_,) in self._ask("select message_id from payments")}

    def _has_table(self) -> bool:
        return bool(self._ask("select 1 from sqlite_master where name = 'payments'"))

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.file, timeout=LOCKED_SECONDS)) as connection:
            return connection.execute(query).fetchall()
