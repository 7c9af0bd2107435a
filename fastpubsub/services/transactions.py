"""Settles and publishes in one transaction, for clients without a database of their own."""

from collections.abc import Sequence
from typing import NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import InvalidRequest, SchemaChanged
from fastpubsub.message_ids import parse_targets
from fastpubsub.payloads import Batch, Delay
from fastpubsub.services.appends import columns, expiry_columns
from fastpubsub.services.directory import Directory
from fastpubsub.services.settling import ACK, NACK, REJECT, SETTLED, Kind, SettleKey, Settling
from fastpubsub.services.topic_schemas import TopicSchemas

_ATTEMPTS = 5

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
        self._schemas = TopicSchemas(database)

    async def run(self, settlements: Sequence[Settlement], publications: Sequence[Publication]) -> None:
        """Raises NoLongerHeld or InvalidRequest, and has done nothing, when a delivery is not held, or a payload does
        not match the schema of its topic.
        """
        for _ in range(_ATTEMPTS):
            versions = [await self._version(index, one) for index, one in enumerate(publications)]
            try:
                await self._call(settlements, publications, versions)
                break
            except SchemaChanged:
                for one in publications:
                    await self._directory.topics.use(one.topic_id, self._schemas.look_up)
        else:
            raise SchemaChanged("the schemas of the topics keep changing; try again")
        for settlement in settlements:
            await self._tell(settlement)

    async def _version(self, index: int, publication: Publication) -> int:
        """Of the schema that the payloads match."""

        async def version(topic_key: int) -> int:
            return await self._schemas.version(topic_key, publication.batch.payloads)

        try:
            return await self._directory.topics.use(publication.topic_id, version)
        except InvalidRequest as error:
            errors = [{**one, "loc": ["body", "publishes", index, *one["loc"][1:]]} for one in error.errors]
            raise InvalidRequest(f'topic "{publication.topic_id}": {error.detail}', errors) from None

    async def _call(
        self, settlements: Sequence[Settlement], publications: Sequence[Publication], versions: Sequence[int]
    ) -> None:
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
            *(expiry_columns(batches) or (None, None)),
            Array("int8", [version for version, batch in zip(versions, batches, strict=True) for _ in batch.payloads]),
        )

    async def _tell(self, settlement: Settlement) -> None:
        """Those who wait or stream; the relay counts."""
        keys = await self._directory.subscriptions.key(settlement.subscription_id)
        targets = parse_targets(settlement.ack_ids, keys.topic_key)
        key = SettleKey(keys, settlement.kind, settlement.subscription_id)
        self._settling.told(key, [targets], [SETTLED] * len(settlement.ack_ids))
