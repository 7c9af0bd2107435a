"""The Model Context Protocol, spoken to the real command."""

import json
from typing import Any

from fastpubsub.client import Client
from tests.cli.conftest import Cli


def ask(cli: Cli, *requests: object, options: tuple[str, ...] = ()) -> list[Any]:
    lines = [one if isinstance(one, str) else json.dumps({"jsonrpc": "2.0", **one}) for one in requests]  # type: ignore[dict-item]
    done = cli("mcp", *options, given="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def call(id_: int, name: str, **arguments: object) -> dict[str, Any]:
    return {"id": id_, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def texts(answers: list[Any]) -> list[str]:
    return [one["result"]["content"][0]["text"] for one in answers]


def test_an_agent_finds_out_why_a_message_did_not_arrive(cli: Cli, bus: Client) -> None:
    bus.create_subscription("mails", "orders", filter={"Country": ["BR"]})
    (id_,) = bus.publish("orders", {"country": "a secret", "Country": "DE"})
    start, found, *answers = ask(
        cli,
        {"id": 1, "method": "initialize", "params": {"protocolVersion": "2025-03-26", "capabilities": {}}},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        call(3, "list_subscriptions", topic_id="orders"),
        call(4, "explain_message", message_id=id_, subscription_id="mails"),
        call(5, "browse_subscription", subscription_id="billing", state="ahead"),
        call(6, "get_metrics", subscription_id="billing"),
    )
    assert start["result"]["protocolVersion"] == "2025-03-26"
    assert {"explain_message", "browse_topic", "list_consumers", "get_overview"} <= {
        one["name"] for one in found["result"]["tools"]
    }
    assert all(one["annotations"]["readOnlyHint"] for one in found["result"]["tools"])
    subscriptions, explained, browsed, metrics = (json.loads(text) for text in texts(answers))
    assert [one["id"] for one in subscriptions["data"]] == ["billing", "mails"]
    assert (explained["state"], explained["field"]) == ("filtered", "Country")
    assert browsed["data"][0]["id"] == id_
    assert metrics["available"] == 1
    assert bus.metrics("billing").delivered == 0


def test_payloads_are_shown_only_when_asked_for(cli: Cli, bus: Client) -> None:
    bus.create_subscription("mails", "orders", filter={"a": ["x"]})
    (id_,) = bus.publish("orders", {"a": "a secret"}, attributes={"b": "a secret"})
    calls = [
        call(1, "explain_message", message_id=id_),
        call(2, "explain_message", message_id=id_, subscription_id="mails"),
        call(3, "browse_topic", topic_id="orders"),
        call(4, "browse_subscription", subscription_id="billing"),
    ]
    hidden, shown = ask(cli, *calls), ask(cli, *calls, options=("--payloads",))
    assert "a secret" not in json.dumps(hidden)
    assert all("a secret" in text for text in texts(shown))
    (refused,) = ask(cli, call(1, "browse_topic", topic_id="orders", q="a secret"))
    assert refused["error"]["code"] == -32602


def test_what_is_wrong_is_answered(cli: Cli) -> None:
    answers = ask(
        cli,
        "nonsense",
        "[]",
        "",
        {"id": 1, "method": "nothing"},
        call(2, "delete_topic", topic_id="orders"),
        call(3, "get_topic"),
        call(4, "get_topic", topic_id=5),
        {"id": 5, "method": "tools/call", "params": {"name": "get_topic", "arguments": [1]}},
        call(6, "get_topic", topic_id="nowhere"),
        {"id": 7, "method": "ping"},
    )
    assert [one["error"]["code"] for one in answers[:-2]] == [-32700, -32600, -32601, -32602, -32602, -32602, -32602]
    assert answers[-2]["result"]["isError"]
    assert "does not exist" in texts(answers[-2:-1])[0]
    assert answers[-1]["result"] == {}
