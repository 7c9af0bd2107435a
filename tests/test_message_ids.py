"""Ids say where a message is, and nothing else can be read as one."""

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.message_ids import MessageId, MessageIds, Targets, ack_id, parse, parse_targets

NOW = datetime(2026, 11, 21, 12, 30, 15, 123000, tzinfo=UTC)
LAST_TOPIC, LAST_POSITION = 2**32 - 1, 2**42 - 1

topic_keys = st.integers(0, LAST_TOPIC)
positions = st.integers(0, LAST_POSITION)
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(  # noqa: DTZ001 - Hypothesis adds it
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
tokens = st.integers(-(2**63), 2**63 - 1)


@given(topic_key=topic_keys, position=positions, time=times)
def test_round_trip(topic_key: int, position: int, time: datetime) -> None:
    text = MessageIds(topic_key, time).at(position)
    assert parse(text) == MessageId(topic_key, position, time)
    assert parse(text.upper()) == MessageId(topic_key, position, time)


@pytest.mark.parametrize("topic_key", [0, 1, 2**20 - 1, 2**20, LAST_TOPIC])
@pytest.mark.parametrize("position", [0, 1, 2**32, LAST_POSITION])
def test_every_bit_has_its_place(topic_key: int, position: int) -> None:
    assert parse(MessageIds(topic_key, NOW).at(position)) == MessageId(topic_key, position, NOW)


@given(topic_key=topic_keys, position=positions, time=times)
def test_ids_are_uuids_of_version_7(topic_key: int, position: int, time: datetime) -> None:
    text = MessageIds(topic_key, time).at(position)
    read = uuid.UUID(text)
    assert str(read) == text
    assert (read.version, read.variant) == (7, uuid.RFC_4122)
    assert read.int >> 80 == (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_ids_of_a_topic_sort_as_its_messages() -> None:
    later = NOW + timedelta(milliseconds=1)
    written = [
        MessageIds(7, NOW).at(1),
        MessageIds(7, NOW).at(2),
        MessageIds(7, NOW).at(300),
        MessageIds(7, later).at(301),
    ]
    assert written == sorted(written)


def test_the_time_may_have_any_zone_and_microseconds_that_an_id_has_no_room_for() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-5))) + timedelta(microseconds=999)
    assert MessageIds(7, elsewhere).at(3) == MessageIds(7, NOW).at(3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "00000000-0000-7000-8000-00000000000",
        "00000000-0000-7000-8000-0000000000000",
        "0000000000007000800000000000000000000",
        "{00000000-0000-7000-8000-000000000000}",
        "urn:uuid:00000000-0000-7000-8000-000000000000",
        "00000000-0000-7000-8000-00000000000g",
        "00000000-0000-7000-8000-00000000000\n",
        "00000000-0000-7000-8000-000000000000\n",
        "\u06600000000-0000-7000-8000-000000000000",
        "00000000-0000-7000-8000-000000000000.",
        "00000000-0000-7000-8000-000000000000.0123",
        "\x00",
        "\ud800",
    ],
)
def test_no_uuids(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)
    with pytest.raises(InvalidRequest, match="id 1 of the list"):
        parse_targets([MessageIds(7, NOW).at(1), text], 7)


def test_an_ack_id_is_no_message_id() -> None:
    with pytest.raises(InvalidRequest):
        parse(ack_id(MessageIds(7, NOW).at(1), 5))


@pytest.mark.parametrize(
    "text",
    [
        "550e8400-e29b-41d4-a716-446655440000",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
        "00000000-0000-7000-c000-000000000000",
    ],
)
def test_uuids_of_others_name_no_message(text: str) -> None:
    assert parse(text) is None
    targets = parse_targets([text, f"{text}.0123456789abcdef"], 7)
    assert (targets.indexes, targets.positions) == ([], [])


@given(st.uuids())
def test_any_uuid_can_be_asked_for(value: uuid.UUID) -> None:
    read = parse(str(value))
    assert read is None or (value.version == 7 and read.created_at.tzinfo is UTC)


@given(token=tokens)
def test_tokens(token: int) -> None:
    text = ack_id(MessageIds(7, NOW).at(1), token)
    assert parse_targets([text], 7).tokens == [token]
    assert parse_targets([text.upper()], 7).tokens == [token]


def test_targets_keep_their_places() -> None:
    mine, other = MessageIds(7, NOW), MessageIds(8, NOW + timedelta(seconds=1))
    ids = [other.at(1), mine.at(5), str(uuid.UUID(int=0)), ack_id(mine.at(2), -1), mine.at(5)]
    targets = parse_targets(ids, 7)
    assert targets.lengths == [1, 1, 1]
    assert targets.indexes == [1, 3, 4]
    assert targets.positions == [5, 2, 5]
    assert targets.tokens == [None, -1, None]
    assert targets.created_at == [NOW, None, NOW], "a token says more than a time"


def test_neighbours_are_one_run() -> None:
    ids, later = MessageIds(7, NOW), MessageIds(7, NOW + timedelta(seconds=1))
    bare = parse_targets([ids.at(1), ids.at(2), later.at(3), later.at(4), later.at(6)], 7)
    assert (bare.positions, bare.lengths) == ([1, 3, 6], [2, 2, 1])
    assert list(bare.singly())[1:3] == [(1, 2, None, NOW), (2, 3, None, NOW + timedelta(seconds=1))]
    one = [ack_id(ids.at(1), 5), ack_id(later.at(2), 5), ack_id(ids.at(3), 5)]
    assert parse_targets(one, 7) == Targets([1], [3], [5], [None])
    two = parse_targets([*one, ack_id(ids.at(4), 6), ack_id(ids.at(5), 6)], 7)
    assert (two.positions, two.lengths, two.tokens, two.indexes) == ([1, 4], [3, 2], [5, 6], [0, 1, 2, 3, 4])
    assert parse_targets([one[1], one[0]], 7).positions == [2, 1]
    assert parse_targets([one[0], one[0]], 7).positions == [1, 1]
    other = ack_id(MessageIds(8, NOW).at(2), 5)
    assert parse_targets([one[0], other, one[2]], 7).indexes == [0, 2]


def test_no_ack_ids_of_the_right_length() -> None:
    good = ack_id(MessageIds(7, NOW).at(1), 5)
    digits = good.replace("-", "").replace(".", "")
    shifted = [digits[:43] + ".........."[:10], digits[:5] + digits]
    assert [len(text) for text in shifted] == [53, 53]
    for bad in (
        [shifted[0], shifted[1]],
        [good[:-1] + " "],
        [good[1:8] + "-" + good[8:]],
        [good[:36] + "-" + good[37:]],
    ):
        with pytest.raises(InvalidRequest, match="id 0 of the list"):
            parse_targets(bad, 7)
    with pytest.raises(InvalidRequest, match="id 2 of the list"):
        parse_targets([good, good, good[:-1] + "g", good], 7)
    with pytest.raises(InvalidRequest, match="id 1 of the list"):
        parse_targets([good, good[:-1] + "\u0660"], 7)


def test_ack_ids_of_another_topic_or_shape_name_no_message() -> None:
    mine, other = ack_id(MessageIds(7, NOW).at(1), 5), ack_id(MessageIds(8, NOW).at(1), 5)
    targets = parse_targets([other, mine, "550e8400-e29b-41d4-a716-446655440000.0123456789abcdef"], 7)
    assert (targets.indexes, targets.positions, targets.tokens) == ([1], [1], [5])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_ids_of_one_delivery_in_any_order(positions: list[int]) -> None:
    ids = MessageIds(7, NOW)
    expected = Targets()
    for position in positions:
        expected.append(position, 5, None)
    assert parse_targets([ack_id(ids.at(position), 5) for position in positions], 7) == expected
