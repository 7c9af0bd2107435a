"""Messages of the bus in memory that do not match the schema of their topic: copies of dead letters.

Nothing else can, because there is no SQL.
"""

from collections.abc import Callable

from pydantic_core import to_json

from fastpubsub import models
from fastpubsub.payloads import parse_ids
from fastpubsub.refused_ids import parse, refused_id
from fastpubsub.testing.answers import listed, time_text, with_content
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.consuming import MAX_IDS
from fastpubsub.testing.store.log import Log
from fastpubsub.testing.store.records import RefusedCopy


class Refused(Part):
    @route("GET", "/topics/{id}/refused")
    def list_refused(self, call: Call) -> Answer:
        log = self.store.log(*call.ids)
        found = [(key, one) for key, one in sorted(log.refused.items()) if key > call.after]
        shown = found[: call.number("limit", 10, 1, 100)]
        data = listed([_refused(log, key, one) for key, one in shown])
        if len(shown) == len(found):
            return 200, data
        return 200, data[:-1] + b',"next_page_token":' + to_json(call.token(shown[-1][0])) + b"}"

    @route("POST", "/topics/{id}/refused/publish", "publish_refused_messages")
    def publish_refused(self, call: Call) -> Answer:
        log = self.store.log(*call.ids)
        return _moved(call, log, lambda key: log.publish_refused(key, self.store.now))

    @route("DELETE", "/topics/{id}/refused", "purge_refused_messages")
    def purge_refused(self, call: Call) -> Answer:
        log = self.store.log(*call.ids)
        return _moved(call, log, lambda key: log.refused.pop(key, None) is not None)


def _refused(log: Log, key: int, one: RefusedCopy) -> bytes:
    fields = {
        "id": refused_id(key),
        "topic_id": log.topic.id,
        "reason": one.reason,
        "refused_at": time_text(one.message.created_at),
    }
    return with_content(fields, one.message)


def _moved(call: Call, log: Log, move: Callable[[int], bool]) -> Answer:
    ids = parse_ids(call.body, max_ids=MAX_IDS)
    keys = {id_: parse(id_) for id_ in ids}
    moved = [id_ for id_, key in sorted(keys.items(), key=lambda item: item[1]) if move(key)]
    if not call.prefers_representation:
        return 204, None
    return 200, models.Moved(ids=[id_ for id_ in keys if id_ in moved])
