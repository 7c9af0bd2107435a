"""What background jobs have in common: a failure is logged, and the job goes on."""

import logging

from fastpubsub.exceptions import Unavailable


class Surviving:
    """A block that is left by a failure as if it had ended."""

    def __init__(self, logger: logging.Logger, job: str, level: int = logging.WARNING) -> None:
        """`level`: of the line that says that the database is away."""
        self._logger = logger
        self._job = job
        self._level = level

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Unavailable):
            self._logger.log(self._level, "%s waits for the database: %s", self._job, error.detail)
        elif isinstance(error, Exception):
            self._logger.error("%s failed", self._job, exc_info=error)
        else:
            return False
        return True
