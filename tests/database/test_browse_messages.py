"""browse_messages_2 beside what is in each state, which is that of the model: test_model.py compares them."""

import json

import pytest

from tests.database.conftest import OpenStore
from tests.database.store import MICROSECOND, NOW, SECOND, Keys, Seen, Store

Searched = tuple[str, str | None, list[str]]


@pytest.fixture
def keys(store: Store) -> Keys:
    """Positions 1 to 10: dead, waiting (2 is due first), leased and ahead."""
    keys = store.create(backoff_min=10, ack_deadline=30)
    store.publish(keys.topic, [json.dumps({"n": n}) for n in range(1, 11)])
    claimed = store.claim(keys, [5, 1], ["one", "two"]).ids
    store.reject(keys, claimed[:1], ["no such customer"])
    store.nack(keys, claimed[2:3])
    store.nack(keys, claimed[1:2], [0])
    return keys


def test_what_each_state_has(store: Store, keys: Keys) -> None:
    (dead,) = store.browse(keys, "dead").seen
    assert (dead.position, dead.attempts, dead.at, dead.note) == (1, 1, NOW, "no such customer")
    waiting = store.browse(keys, "waiting").seen
    assert [(one.position, one.attempts, one.at, one.note) for one in waiting] == [
        (2, 1, NOW, "nacked"),
        (3, 1, NOW + 10 * SECOND, "nacked"),
    ]
    leased = store.browse(keys, "leased").seen
    assert [(one.position, one.note) for one in leased] == [(4, "one"), (5, "one"), (6, "two")]
    assert {(one.attempts, one.at) for one in leased} == {(1, NOW + 30 * SECOND)}
    assert [(one.position, one.attempts, one.at) for one in store.browse(keys).seen] == [
        (position, 0, None) for position in (7, 8, 9, 10)
    ]
    assert json.loads(leased[0].payload) == {"n": 4}


@pytest.mark.parametrize("state", ["ahead", "leased", "waiting", "dead", "all"])
def test_page_by_page(store: Store, keys: Keys, state: str) -> None:
    whole = store.browse(keys, state)
    assert (whole.next, whole.looked_at) == (None, len(whole.seen))
    pages: list[Seen] = []
    position, time = None, None
    for _ in whole.seen:
        page = store.browse(keys, state, position, time, limit=1)
        pages += page.seen
        position, time = page.next, page.next_at if state == "waiting" else None
    assert (pages, position) == (whole.seen, None)


def test_a_topic_backwards(store: Store, keys: Keys) -> None:
    newest = store.browse(keys, "all", backwards=True, limit=3)
    assert (newest.positions, newest.next, newest.other_side) == ([10, 9, 8], 7, None)
    older = store.browse(keys, "all", 8, backwards=True, limit=7)
    assert (older.positions, older.next, older.other_side) == ([7, 6, 5, 4, 3, 2, 1], None, 8)


def test_a_place_out_of_reach(store: Store, keys: Keys) -> None:
    assert store.browse(keys, "all", 99).positions == []
    assert store.browse(keys, "all", 99).other_side == 11
    assert store.browse(keys, "all", 0, limit=1).positions == [1]
    assert store.browse(keys, "all", 1, backwards=True).positions == []
    assert store.browse(keys, "ahead", 1, limit=1).positions == [7]
    assert store.browse(keys, "leased", 6).positions == [6]
    assert store.browse(keys, "leased", 7).positions == []
    empty = store.create_topic("empty")
    for backwards in (False, True):
        assert store.browse(Keys(empty, 0), "all", backwards=backwards) == ([], 0, None, None, None)


def test_from_a_time_on(store: Store, keys: Keys) -> None:
    store.fill(keys.topic, 2, now=NOW + 10 * SECOND)
    for time, position in ((NOW, 1), (NOW + MICROSECOND, 11), (NOW + 11 * SECOND, None)):
        assert next(iter(store.browse(keys, "all", time=time).positions), None) == position
    assert store.browse(keys, "waiting", time=NOW + SECOND).positions == [3]
    assert store.browse(keys, "ahead", time=NOW + SECOND).positions == [11, 12]


PAYLOADS = [
    '{"name": "Ren\\u00e9", "n": 1.50, "tags": ["a", "b"], "is": true}',
    '{"name": "René", "n": "1.5", "nothing": null}',
    '{"name": "x", "n": 1e999999, "quote": "say \\"Hi\\""}',
]
SEARCHES: list[tuple[Searched, list[int]]] = [
    (("text", None, ["René", "Ren\\u00e9"]), [1, 2]),
    (("text", None, ["NAME"]), [1, 2, 3]),
    (("text", None, ['say \\"hi\\"']), [3]),
    (("text", None, ["%"]), []),
    (("text", None, [".*"]), []),
    (("payload", "n", ['"1.5"', "1.5"]), [1, 2]),
    (("payload", "n", ['"1.5"']), [2]),
    (("payload", "tags", ['["a", "b"]']), [1]),
    (("payload", "is", ["true"]), [1]),
    (("payload", "nothing", ["null"]), [2]),
    (("payload", "missing", ["null"]), []),
    (("payload", "name", ['"René"']), [1, 2]),
    (("attributes", "k", ["v"]), [2]),
    (("attributes", "k", ["V"]), []),
    (("attributes", "missing", [""]), []),
]


@pytest.mark.parametrize(("search", "positions"), SEARCHES)
def test_what_is_found(store: Store, search: Searched, positions: list[int]) -> None:
    keys = store.create()
    store.publish(keys.topic, PAYLOADS, attributes=[None, '{"k": "v"}', None])
    for state in ("all", "ahead"):
        found = store.browse(keys, state, search=search)
        assert (found.positions, found.looked_at) == (positions, 3)
    store.claim(keys)
    assert store.browse(keys, "leased", search=search).positions == positions


def test_a_filter_and_what_it_cannot_read(store: Store) -> None:
    keys = store.create(filter='{"n": [1.5]}')
    store.publish(keys.topic, [*PAYLOADS, '{"n": 1.5}'])
    assert store.browse(keys).positions == [1, 4]
    assert store.browse(keys, search=("text", None, ["name"])).positions == [1]


def test_bounds(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 300, json.dumps({"a": "x" * 1000}))
    nothing = ("text", None, ["y"])
    for state in ("all", "ahead"):
        rows = store.browse(keys, state, search=nothing, rows=50)
        assert (rows.positions, rows.looked_at, rows.next) == ([], 50, 51)
        time = store.browse(keys, state, search=nothing, milliseconds=0)
        assert (time.looked_at, time.next) == (1, 2)
        size = store.browse(keys, state, max_bytes=3000)
        assert (size.positions, size.next) == ([1, 2], 3)
        assert store.browse(keys, state, max_bytes=1).positions == [1]


def test_the_copy_of_a_reprocessed_dead_letter(store: Store) -> None:
    """Its message may be trimmed."""
    keys = store.create()
    store.publish(keys.topic, ['{"n": 1}', '{"n": 2}'])
    dead = store.claim(keys).ids
    store.reject(keys, dead)
    store.trim(keys.topic, 0, now=NOW + SECOND)
    store.reprocess(keys, [dead[0].bare._replace(created_at=NOW)])
    assert store.positions(keys.topic) == [2]
    assert [one.payload for one in store.browse(keys, "waiting").seen] == ['{"n": 1}']
    store.claim(keys)
    assert [one.payload for one in store.browse(keys, "leased").seen] == ['{"n": 1}']


def test_nothing_is_taken_or_locked(open_store: OpenStore) -> None:
    """Another session holds the cursor and the head."""
    holder, looker = open_store(), open_store()
    keys = holder.create()
    holder.fill(keys.topic, 3)
    holder.execute("begin; select from fastpubsub.cursors for update; select from fastpubsub.heads for update")
    try:
        looker.execute("set lock_timeout = '1ms'; set default_transaction_read_only = on")
        for state in ("all", "ahead", "leased", "waiting", "dead"):
            assert len(looker.browse(keys, state).seen) == (3 if state in ("all", "ahead") else 0)
    finally:
        holder.execute("rollback")


def test_what_is_not_there(store: Store) -> None:
    keys = store.create()
    store.delete_subscription()
    with store.refused("FP404"):
        store.browse(keys)
    with store.refused("FP404"):
        store.browse(Keys(99, 99), "all")
