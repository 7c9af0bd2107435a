"""Messages one after the other, for those who like a loop better than a worker."""

from collections import deque
from collections.abc import AsyncGenerator

from fastpubsub.client.clients import AsyncClient
from fastpubsub.client.deliveries import GIVE_BACK, Delivery, Holder, Outcome, entrust
from fastpubsub.client.leases import Leases
from fastpubsub.client.pulling import Puller
from fastpubsub.client.settling import Settler


async def iterate(
    client: AsyncClient, subscription_id: str, prefetch: int, lease_seconds: int | None
) -> AsyncGenerator[Delivery, None]:
    puller = Puller(client, subscription_id)
    settler = Settler(client, subscription_id)
    leases = Leases(client, subscription_id, lease_seconds)

    async def settle(delivery: Delivery, outcome: Outcome) -> None:
        await settler.settle(outcome, [delivery.ack_id])

    holder = Holder(leases.hold, leases.drop, settle)
    waiting: deque[Delivery] = deque()
    try:
        while True:
            if not waiting:
                waiting.extend(await puller.pull(prefetch))
                for delivery in waiting:
                    entrust(delivery, holder)
                    leases.hold(delivery)
            else:
                delivery = waiting.popleft()
                leases.drop(delivery)  # until its `async with` takes it up
                yield delivery
    finally:
        for delivery in waiting:
            settler.add(delivery, GIVE_BACK)
        await settler.flush()
        await leases.close()
