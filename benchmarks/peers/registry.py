"""The peers that can run here, and why the others cannot."""

import importlib
from collections.abc import Sequence

from benchmarks.peers.peer import Peer

MODULES = {
    "fastpubsub": ("ours", "PEER"),
    "publisher": ("ours", "PUBLISHER"),
    "rabbitmq": ("rabbitmq", "PEER"),
    "redis": ("redis_streams", "PEER"),
    "nats": ("nats_jetstream", "PEER"),
    "pgmq": ("pgmq_queue", "PEER"),
    "procrastinate": ("procrastinate_jobs", "PEER"),
    "faststream": ("faststream_redis", "PEER"),
    "taskiq": ("taskiq_redis_streams", "PEER"),
}


def find(names: Sequence[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers by name, and one sentence for each whose library is missing."""
    found: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name in names:
        module, attribute = MODULES[name]
        try:
            found[name] = getattr(importlib.import_module(f"benchmarks.peers.{module}"), attribute)
        except ModuleNotFoundError as error:
            missing[name] = f"the Python package of {error.name} is not installed: make bench-peers installs it"
    return found, missing
