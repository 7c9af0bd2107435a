"""The twelve usage examples of docs/examples.md, each as it stands there.

What is changed is in CHANGES and RECEIVED; besides, what would run for ever is stopped once its effect was seen.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from fastpubsub.config import Settings
from tests import harness
from tests.conftest import Run, StartServer
from tests.lasting import Last
from tests.pages import DOCS, SECONDS, Block, Shell, ask, blocks

DOCKER = re.compile(r"docker run((?:\s+(?:\\\n|--rm|-p 8000:8000|-e \w+='[^']*'))*)\s+fastpubsub(?= )")
DATABASE = "postgresql+psycopg://YOUR_USER:YOUR_PASSWORD@YOUR_HOST:5432/YOUR_DATABASE"
ID = "550e8400-e29b-41d4-a716-446655440000"
KEY = "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6"
SECRET = "a1b2c3d4e5f6g7h8"
TOKEN = "eyJhbGc..."

RECEIVED = {
    re.compile(r'(?:"id":"|client_id=)([0-9a-f-]{36})'): ID,
    re.compile(r"new_secret=(\S+)"): KEY,
    re.compile(r"client_secret=(\S+)"): SECRET,
    re.compile(r'"access_token":"([^"]+)"'): TOKEN,
}
"""What an answer gave takes the place of what the example made up."""

API_KEY = "k" * 32
SUBSCRIPTION = "/subscriptions/email-sender"


class Player:
    """Plays one example."""

    def __init__(self, folder: Path, database_url: str, port: int) -> None:
        self.url = f"http://localhost:{port}"
        self.api = httpx.Client(base_url=self.url, timeout=SECONDS)
        settings = {"api_host": "127.0.0.1", "api_port": port}
        self.shell = Shell(folder, settings, {"localhost:8000": f"localhost:{port}", DATABASE: database_url})

    def run(self, script: str) -> str:
        printed, status, _ = ask(self.shell, without_docker(script))
        assert status < 400, f"{script}\n{printed}"
        for pattern, made_up in RECEIVED.items():
            if found := pattern.findall(printed):
                self.shell.changes[made_up] = found[-1]
        return printed

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.api.post(path, json=body).raise_for_status()

    def get(self, path: str) -> Any:
        return self.api.get(path).raise_for_status().json()

    def pull(self, subscription: str, size: int = 10) -> list[dict[str, Any]]:
        path = f"/subscriptions/{subscription}/messages?consumer_id=test&batch_size={size}"
        messages: list[dict[str, Any]] = self.get(path)["data"]
        return messages

    def create(self, topic: str, subscription: str | None = None, **settings: Any) -> None:
        self.post("/topics", {"id": topic})
        if subscription is not None:
            self.post("/subscriptions", {"id": subscription, "topic_id": topic, **settings})


def without_docker(script: str) -> str:
    return DOCKER.sub(lambda match: " ".join([*re.findall(r"-e (\w+='[^']*')", match[1]), "fastpubsub"]), script)


def example(number: int) -> list[Block]:
    return [block for block in blocks(DOCS / "examples.md") if block.heading.startswith(f"Example {number}:")]


def script(number: int) -> str:
    """The first block of an example."""
    return example(number)[0].text


def steps(number: int) -> list[str]:
    """An example that is typed in parts."""
    return re.split(r"\n\n(?=# )", script(number))


@pytest.fixture
def play(lasting_server: Last, tmp_path: Path) -> Iterator[Player]:
    """Against a server without authentication."""
    started = lasting_server()
    player = Player(tmp_path, started.database_url, httpx.URL(started.base_url).port or 0)
    with player.api:
        yield player


def test_there_are_twelve() -> None:
    headings = dict.fromkeys(block.heading.partition(":")[0] for block in blocks(DOCS / "examples.md"))
    assert list(headings) == [f"Example {number}" for number in range(1, 13)]


@pytest.mark.long
def test_1_setting_up_authentication(database_url: str, tmp_path: Path) -> None:
    player = Player(tmp_path, database_url, harness.free_port())
    generate, serve, create_client, get_token, use_token = steps(1)
    player.run(generate)
    with player.api, player.shell.start(without_docker(serve)) as serving:
        serving.wait_until(lambda: is_ready(player.api))
        player.run(create_client)
        answer = json.loads(player.run(get_token))
        assert (answer["token_type"], answer["expires_in"], answer["scope"]) == ("Bearer", 1800, "*")
        assert json.loads(player.run(use_token)) == {"data": []}
        assert player.api.get("/topics").status_code == httpx.codes.UNAUTHORIZED


def is_ready(api: httpx.Client) -> bool:
    try:
        return api.get("/readiness").is_success
    except httpx.TransportError:
        return False


def test_2_simple_pub_sub(play: Player) -> None:
    outputs = [play.run(step) for step in steps(2)]
    (message,) = json.loads(outputs[3])["data"]
    assert message["payload"] == {"type": "email", "to": "user@example.com", "subject": "Welcome!"}
    assert message["delivery_attempts"] == 1
    assert counts(play) == {"available": 0, "delivered": 0, "acked": 1, "dlq": 0}


def counts(play: Player) -> dict[str, int]:
    metrics = play.get(f"{SUBSCRIPTION}/metrics")
    return {name: metrics[name] for name in ("available", "delivered", "acked", "dlq")}


def test_3_creating_clients_with_different_scopes(
    server: StartServer, run: Run, database_url: str, tmp_path: Path
) -> None:
    authentication = {"auth_enabled": True, "auth_secret_key": API_KEY}
    play = Player(tmp_path, database_url, httpx.URL(server(**authentication).base_url).port or 0)
    printed = run("create_client", "admin", "*", "true", **authentication).stdout
    client_id, secret = re.findall(r"=(\S+)", printed)
    with play.api:
        admin = token(play, {"id": client_id, "secret": secret})
        play.shell.changes[TOKEN] = admin["Authorization"].removeprefix("Bearer ")
        _, *created = [play.run(step) for step in steps(3)]
        publisher, consumer, several = (token(play, json.loads(one)) for one in created)
        for topic in ("notifications", "others"):
            assert play.api.post("/topics", json={"id": topic}, headers=several).is_success
        body = {"id": "email-sender", "topic_id": "notifications"}
        assert play.api.post("/subscriptions", json=body, headers=several).is_success
        assert play.api.post("/topics/notifications/messages", json=[{}], headers=publisher).is_success
        assert play.api.post("/topics/others/messages", json=[{}], headers=publisher).status_code == 403
        pull = f"{SUBSCRIPTION}/messages?consumer_id=test"
        assert len(play.api.get(pull, headers=consumer).json()["data"]) == 1
        assert play.api.get(pull, headers=several).status_code == 403
        assert play.api.post("/clients", json={"name": "x", "scopes": "*"}, headers=several).status_code == 403


def token(play: Player, client: dict[str, str]) -> dict[str, str]:
    answer = play.post("/oauth/token", {"client_id": client["id"], "client_secret": client["secret"]})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def test_4_filtered_subscription(play: Player) -> None:
    play.create("user-events")
    play.run(script(4))
    assert [message["payload"]["user_id"] for message in play.pull("regional-processor")] == ["1", "3"]


def test_5_complex_filter(play: Player) -> None:
    play.create("orders", "important", **json.loads(script(5)))
    wanted = {"event_type": "order.created", "priority": "critical", "region": "us-west"}
    others = [wanted | {name: "other"} for name in wanted]
    others += [{name: value for name, value in wanted.items() if name != missing} for missing in wanted]
    also = {"event_type": "order.updated", "priority": "high", "region": "us-east", "total": 1}
    play.post("/topics/orders/messages", [*others, wanted, also])
    assert [message["payload"] for message in play.pull("important")] == [wanted, also]


def test_6_handling_failed_messages(play: Player) -> None:
    play.create("notifications", "email-sender", max_delivery_attempts=1)
    play.post("/topics/notifications/messages", [{"to": "nobody"}])
    (message,) = play.pull("email-sender")
    play.post(f"{SUBSCRIPTION}/nacks", [message["id"]])
    metrics, letters, _ = (json.loads(play.run(step) or "null") for step in steps(6))
    assert metrics["dlq"] == 1
    assert [letter["payload"] for letter in letters["data"]] == [{"to": "nobody"}]
    assert counts(play) == {"available": 1, "delivered": 0, "acked": 0, "dlq": 0}
    (again,) = play.pull("email-sender")
    assert (again["id"], again["delivery_attempts"]) == (message["id"], 1)


def test_7_health_check_monitoring(play: Player) -> None:
    assert [json.loads(play.run(step)) for step in steps(7)] == [{"status": "alive"}, {"status": "ready"}]
    probes = yaml.safe_load(example(7)[1].text)
    assert set(probes) == {"livenessProbe", "readinessProbe"}
    for probe in probes.values():
        assert probe["httpGet"]["port"] == Settings.model_fields["api_port"].default
        assert play.api.get(probe["httpGet"]["path"]).is_success


def test_8_monitoring_with_prometheus(play: Player) -> None:
    def asked_for_topics() -> float:
        samples = {tuple(sorted(one.labels.items())): one.value for one in families()["http_requests"].samples}
        return samples.get((("method", "GET"), ("path", "/topics"), ("status", "200")), 0)

    def families() -> dict[str, Metric]:
        return {family.name: family for family in text_string_to_metric_families(play.run(script(8)))}

    before = asked_for_topics()
    play.get("/topics")
    assert asked_for_topics() == before + 1
    found = families()
    assert found["http_requests"].type == "counter"
    assert found["http_request_duration_seconds"].type == "histogram"
    (scrape,) = yaml.safe_load(example(8)[1].text)["scrape_configs"]
    (target,) = scrape["static_configs"][0]["targets"]
    address = f"http://{target}{scrape['metrics_path']}".replace("http://localhost:8000", play.url)
    assert httpx.get(address).headers["content-type"].startswith("text/plain; version=0.0.4")


def test_9_multiple_consumers(play: Player) -> None:
    play.create("notifications", "email-sender")
    published = 0

    def both_have_worked() -> bool:
        nonlocal published
        if counts(play)["acked"] == published:
            play.post("/topics/notifications/messages", [{}] * 20)
            published += 20
        return all("processing" in worker.output() for worker in (first, second))

    one, two = steps(9)
    with play.shell.start(one) as first, play.shell.start(two) as second:
        first.wait_until(both_have_worked)
        first.wait_until(lambda: counts(play)["acked"] == published)
        lines = re.findall(r"Worker ([12]) processing: (\S+)", first.output() + second.output())
    assert {worker for worker, _ in lines} == {"1", "2"}
    assert len({message for _, message in lines}) == len(lines) == published


def test_10_error_handling(play: Player) -> None:
    play.create("notifications", "email-sender")
    play.post("/topics/notifications/messages", [{"email": "user@example.com"}, {"name": "without address"}])
    with play.shell.start(script(10), "python") as consumer:
        consumer.wait_until(lambda: counts(play)["acked"] == 2)
        assert re.fullmatch(r"Permanent error for \S{36}: Missing required field: email\n", consumer.output())


def test_11_monitoring_and_alerting(play: Player) -> None:
    play.create("notifications", "email-sender", max_delivery_attempts=1)
    for _ in range(2):
        play.post("/topics/notifications/messages", [{}] * 602)
    play.post(f"{SUBSCRIPTION}/nacks", [message["id"] for message in play.pull("email-sender", 2)])
    play.pull("email-sender", 100)
    play.pull("email-sender", 1)
    lines = play.run(script(11)).splitlines()
    assert lines == [
        "Subscription: email-sender",
        "Available messages: 1101",
        "Delivered messages: 101",
        "DLQ messages: 2",
        "⚠️ WARNING: 2 messages in dead letter queue!",
        "⚠️ WARNING: 1101 messages waiting (consumer may be slow)",
        "⚠️ WARNING: 101 messages in delivered state (possible consumer crash)",
    ]


def test_12_topic_fan_out(play: Player) -> None:
    play.run(script(12))
    order = {
        "order_id": "12345",
        "customer_email": "customer@example.com",
        "status": "completed",
        "total": 99.99,
    }
    for subscription in ("order-emails", "order-inventory", "order-analytics"):
        assert [message["payload"] for message in play.pull(subscription)] == [order]
