"""Iterates over messages, as a loop instead of a worker."""

from collections import deque
from collections.abc import AsyncGenerator

from fastpubsub.client.connections import AsyncConnection
from fastpubsub.client.deliveries import RETURN, Delivery, Holder, Outcome, entrust
from fastpubsub.client.leases import Leases
from fastpubsub.client.pulling import Puller
from fastpubsub.client.settling import Settler


async def iterate(
    client: AsyncConnection,
    subscription_id: str,
    prefetch: int,
    lease_seconds: int | None,
    lasting: Leases | None = None,
) -> AsyncGenerator[Delivery, None]:
    """Leases that are `lasting` go on after the end, for what was handed out."""
    settler = Settler(client, subscription_id)
    puller = Puller(client, subscription_id, settler)
    leases = lasting or Leases(client, subscription_id, lease_seconds)

    async def settle(delivery: Delivery, outcome: Outcome) -> None:
        settler.add(delivery, outcome)
        await settler.flush()  # cancelled or not, it is sent

    holder = Holder(leases.hold, leases.drop, settle, client.is_in_memory)
    waiting: deque[Delivery] = deque()
    try:
        while True:
            if not waiting:
                if deliveries := await puller.pull(prefetch):
                    entrust(deliveries, holder)
                    leases.hold(*deliveries)
                    waiting.extend(deliveries)
            else:
                delivery = waiting.popleft()
                leases.drop(delivery)  # until its `async with` takes it up
                yield delivery
    finally:
        for delivery in [*waiting, *await puller.leave()]:
            leases.drop(delivery)
            settler.add(delivery, RETURN)
        await settler.flush()
        if lasting is None:
            await leases.close()
