"""Settles and publishes in one transaction, for clients without a database of their own."""

from collections.abc import Sequence
from typing import NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.message_ids import parse_targets
from fastpubsub.payloads import Batch, Delay
from fastpubsub.services.appends import columns, expiry_columns
from fastpubsub.services.directory import Directory
from fastpubsub.services.settling import ACK, NACK, REJECT, SETTLED, Kind, SettleKey, Settling

ACTIONS: dict[Kind, str] = {ACK: "ack", NACK: "nack", REJECT: "reject"}


class Settlement(NamedTuple):
    subscription_id: str
    kind: Kind
    ack_ids: Sequence[str]
    delay_seconds: int | None = None
    reason: str | None = None


class Publication(NamedTuple):
    topic_id: str
    batch: Batch


class Transactions:
    def __init__(self, database: Database, directory: Directory, settling: Settling) -> None:
        self._database = database
        self._directory = directory
        self._settling = settling

    async def run(self, settlements: Sequence[Settlement], publications: Sequence[Publication]) -> None:
        """Raises NoLongerHeld, and has done nothing, when a delivery is not held."""
        batches = [one.batch for one in publications]
        payloads, attributes = columns(batches)
        keys = [key for batch in batches for key in (batch.ordering_keys or [None] * len(batch.payloads))]
        delays = [delay for batch in batches for delay in (batch.delays or [Delay(None, None)] * len(batch.payloads))]
        await self._database.fetch_one(
            "run_transaction",
            Array("text", [one.subscription_id for one in settlements]),
            Array("text", [ACTIONS[one.kind] for one in settlements]),
            Array("int4", [len(one.ack_ids) for one in settlements]),
            Array("text", [ack_id for one in settlements for ack_id in one.ack_ids]),
            Array("int4", [one.delay_seconds for one in settlements]),
            Array("text", [one.reason for one in settlements]),
            Array("text", [one.topic_id for one in publications for _ in one.batch.payloads]),
            payloads,
            attributes,
            Array("text", keys),
            Array("timestamptz", [delay.deliver_at for delay in delays]),
            Array("int4", [delay.seconds for delay in delays]),
            *expiry_columns(batches),
        )
        for settlement in settlements:
            await self._tell(settlement)

    async def _tell(self, settlement: Settlement) -> None:
        """Those who count, wait or stream."""
        keys = await self._directory.subscriptions.key(settlement.subscription_id)
        targets = parse_targets(settlement.ack_ids, keys.topic_key)
        key = SettleKey(keys, settlement.kind, settlement.subscription_id)
        self._settling.settled(key, [targets], [SETTLED] * len(settlement.ack_ids))
