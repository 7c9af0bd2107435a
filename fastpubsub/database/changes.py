from typing import NamedTuple


class Change(NamedTuple):
    """What is remembered of a change, in its own transaction: the arguments of `record_change`.

    Without an `object_id` it is what the procedure returns. `body` is JSON.
    """

    client_id: str
    request_id: str | None
    action: str
    object: str
    object_id: str | None
    body: str | None = None
