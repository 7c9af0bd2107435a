"""Which database a process talks through."""

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database


def open_database(settings: Settings) -> Database:
    if settings.traces_enabled:
        from fastpubsub.database.traced import TracedDatabase

        return TracedDatabase(settings)
    return Database(settings)
