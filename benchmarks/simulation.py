"""A closed loop of callers, one server process and PostgreSQL, as events: who waits for whom, and what comes of it.

The server takes one request after the other on its core. While a call to PostgreSQL is on its way, requests of the
topic queue; the next call takes all of them. What all programs need together is not more than the cores give.
"""

import heapq
from dataclasses import dataclass

REQUESTS = 20_000


@dataclass(frozen=True)
class Costs:
    """Seconds of CPU of a request at the server and at its caller, of a call to PostgreSQL, and of its commit."""

    server: float
    generator: float
    call: float
    request_in_call: float
    commit: float


@dataclass(frozen=True)
class Outcome:
    rate: float
    """Requests a second."""
    calls: float
    """Of PostgreSQL, for each request."""


def closed_loop(callers: int, costs: Costs, cores: int) -> Outcome:
    free = simulate(callers, costs)
    needed = costs.server + costs.generator + free.calls * costs.call + costs.request_in_call
    return Outcome(min(free.rate, cores / needed), free.calls)


def simulate(callers: int, costs: Costs) -> Outcome:
    """Where nobody lacks a core."""
    events = [(costs.server * (number + 1), 0) for number in range(callers)]
    server_is_free_at = costs.server * callers
    queue = done = calls = 0
    is_calling = False
    now = 0.0
    while done < REQUESTS:
        now, answered = heapq.heappop(events)
        queue += not answered
        is_calling = is_calling and not answered
        done += answered
        for _ in range(answered):
            server_is_free_at = max(server_is_free_at, now) + costs.server
            heapq.heappush(events, (server_is_free_at, 0))
        if queue and not is_calling:
            seconds = costs.call + costs.commit + costs.request_in_call * queue
            heapq.heappush(events, (now + seconds, queue))
            queue, is_calling, calls = 0, True, calls + 1
    return Outcome(done / now, calls / done)
