"""The benchmark of several nodes runs and counts right, on one. How fast anything is, no test says."""

from benchmarks import spread
from fastpubsub.database.urls import normalise


async def test_on_one_node(database_url: str) -> None:
    told: list[str] = []
    places = await spread.measure(database_url, database_url, 2, told.append)
    assert [one.name for one in places] == [spread.PLAIN, spread.COORDINATOR]
    assert told == ["the second database is not spread: it is measured as the first one is"]
    counts = {"publish 1": 20, "claim 1": 20, "ack 1": 20, "publish 100": 8, "claim 100": 4, "exchange 100": 4}
    for place in places:
        found = {what: len(seconds) for what, seconds in place.seconds.items()}
        assert found == {**counts, "ack 100": 4, "claim of nothing": 20}
        assert (await place.claim(1, "claim 1"))[1] == [], "something was not acked"
    head, _, plain, coordinator = spread.lines(places)
    assert head.count("|") == plain.count("|") == coordinator.count("|") == 10
    assert coordinator.count("(") == 8


async def test_the_node_of_a_topic(database_url: str) -> None:
    async with spread.opened(database_url) as database:
        topic_key, _ = await spread.prepare(database)
        assert await spread.owner_of(database, database_url, topic_key) is None
        parts = [("10.0.0.2:5432", [topic_key + 1]), ("10.0.0.3:5433", [topic_key])]

        async def with_topics(**_: bool) -> list[tuple[str, list[int]]]:
            return parts

        database._nodes.with_topics = with_topics  # type: ignore[method-assign]
        owner = normalise(await spread.owner_of(database, database_url, topic_key) or "")
    assert (owner.host, owner.port, owner.database) == ("10.0.0.3", 5433, normalise(database_url).database)
