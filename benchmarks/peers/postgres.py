"""The embedded PostgreSQL as it comes, one for each broker that lives in a database."""

from pathlib import Path

import psutil

from benchmarks.stack import Cluster
from fastpubsub.database.urls import normalise

RUN_IN_MEGABYTES = 200


class Postgres:
    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder)
        self.cluster.__enter__()
        try:
            self.cluster.run_in(RUN_IN_MEGABYTES)
        except BaseException:
            self.stop()
            raise
        self.url = normalise(self.cluster.postgres.url()).set(drivername="postgresql").render_as_string(False)

    @property
    def processes(self) -> list[psutil.Process]:
        return [self.cluster.process]

    def stop(self) -> None:
        self.cluster.postgres.stop()
