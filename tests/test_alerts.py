"""The alerts and the dashboard of deploy/: tests of the rules, and every query asked while a server has traffic."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psycopg
import yaml

from tests import harness
from tests.conftest import StartServer
from tests.pages import ROOT

RULES = ROOT / "deploy/prometheus/alerts.yaml"
TESTS = ROOT / "deploy/prometheus/alerts.test.yaml"
DASHBOARD = ROOT / "deploy/grafana/fastpubsub.json"
SECONDS = 60.0
TOKEN = "t" * 16
"""Of the metrics."""

SELECTOR = re.compile(r"\b(?:http|fastpubsub)_\w+(?:\{[^}]*\})?")
CONFIGURATION = """
global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 1s}}
rule_files: ['{rules}']
scrape_configs:
  - job_name: fastpubsub
    authorization: {{credentials: '{token}'}}
    static_configs: [{{targets: ['{address}']}}]
"""


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def panels() -> list[dict[str, Any]]:
    return [one for one in json.loads(DASHBOARD.read_text())["panels"] if one["type"] != "row"]


def queries_of_panels() -> dict[str, str]:
    """As Grafana sends them when everything is chosen, for a short time."""
    values = {"$topic": ".*", "$subscription": ".*", "$__rate_interval": "5s"}
    found = {}
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in values.items():
                query = query.replace(name, value)
            assert "$" not in query, query
            found[f"{panel['id']} {panel['title']} {target['refId']}"] = query
    return found


def queries_of_alerts() -> dict[str, str]:
    """What each selects, whatever it compares that with; without the failures, which do not happen here."""
    return {
        f"{name} {number}": re.sub(r', *status[^"]*"5[^"]*"|status[^"]*"5[^"]*"', "", selector)
        for name, rule in alerts().items()
        for number, selector in enumerate(SELECTOR.findall(rule["expr"]))
    }


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid_and_fire_when_they_must() -> None:
    promtool("check", "rules", RULES.name)
    promtool("check", "config", "prometheus.yaml")
    promtool("test", "rules", TESTS.name)


def test_each_rule_is_tested_both_ways() -> None:
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    for fires in (True, False):
        assert {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires} == alerts().keys()


class Prometheus:
    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    async def ask(self, client: httpx.AsyncClient, query: str) -> list[dict[str, Any]]:
        with suppress(httpx.TransportError):
            answer = await client.get(f"{self.address}/api/v1/query", params={"query": query})
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # not started yet
                return []
            assert answer.status_code == httpx.codes.OK, f"{query}: {answer.text}"
            found: list[dict[str, Any]] = answer.json()["data"]["result"]
            return [one for one in found if one["value"][1] != "NaN"]
        return []


@contextmanager
def prometheus(folder: Path, address: str) -> Iterator[Prometheus]:
    (folder / "prometheus.yaml").write_text(CONFIGURATION.format(rules=RULES, address=address, token=TOKEN))
    port = harness.free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yaml",
                f"--storage.tsdb.path={folder}/series",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(SECONDS)


PAUSE_SECONDS = 0.1
"""Between two rounds of the traffic: Prometheus looks four times a second."""


@asynccontextmanager
async def traffic(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Of every kind, again and again, until the block ends."""
    async with httpx.AsyncClient(base_url=base_url, timeout=SECONDS) as client:
        for topic in ("orders", "deleted"):
            (await client.post("/topics", json={"id": topic})).raise_for_status()
        settings = {"topic_id": "orders", "ack_deadline_seconds": 1, "max_delivery_attempts": 1}
        filtered = {"topic_id": "orders", "filter": {"n": [1]}}
        for body in (
            {"id": "billing", **settings},
            {"id": "idle", "topic_id": "orders"},
            {"id": "filtered", **filtered},
            {"id": "behind", "topic_id": "orders", "max_backlog": 1, "on_full": "drop_oldest"},
            {"id": "pushed", "topic_id": "orders", "push": {"endpoint": f"{base_url}/liveness"}},  # which refuses it
        ):
            (await client.post("/subscriptions", json=body)).raise_for_status()
        task = asyncio.create_task(again_and_again(client))
        try:
            yield client
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def again_and_again(client: httpx.AsyncClient) -> None:
    while True:
        (await client.post("/topics/orders/messages", json=[{"n": 1}] * 5)).raise_for_status()
        # More than billing pulls, so some of them wait for longer than they last.
        short = {"messages": [{"payload": {"n": 1}, "ttl_seconds": 1}]}
        (await client.post("/topics/orders/messages", json=short)).raise_for_status()
        pulled = await client.get("/subscriptions/billing/messages?consumer_id=c&batch_size=4&wait_seconds=1")
        ids = [one["ack_id"] for one in pulled.raise_for_status().json()["data"]]
        for how, some in (("acks", ids[:1]), ("nacks", ids[1:2])):
            (await client.post(f"/subscriptions/billing/{how}", json=some)).raise_for_status()
        (await client.post("/subscriptions/billing/rejects", json={"ids": ids[2:3], "reason": "r"})).raise_for_status()
        await client.get("/subscriptions/filtered/messages?consumer_id=c&batch_size=10")
        await client.get("/topics/unknown")
        await asyncio.sleep(PAUSE_SECONDS)


def leave_what_is_rare(url: str) -> None:
    """A message that no publish lets in, and two from SQL: to a topic that is deleted before it is moved, and to one
    whose schema it does not match.
    """
    with psycopg.connect(harness.libpq(url)) as connection:
        connection.execute(
            "select p.* from fastpubsub.topics as t"
            """ cross join fastpubsub.publish_messages(t.topic_key, array['{"n": 1e200000}'::json], null) as p"""
            " where t.id = 'orders'"
        )
        connection.execute("select fastpubsub.publish('deleted', '{}')")
        connection.execute("select fastpubsub.delete_topic('deleted')")
        connection.execute("select fastpubsub.create_topic('strict', p_schema => 'false')")
        connection.execute("select fastpubsub.publish('strict', '{}')")


async def test_every_query_finds_something_under_traffic(
    server: StartServer, database_url: str, tmp_path: Path
) -> None:
    pushing = {"push_secret_key": "k" * 32, "push_allow_http": True, "push_allow_ports": "*"}
    started = server(
        api_num_workers=2,
        lease_expiry_interval_seconds=0.1,
        log_requests=False,
        metrics_token=TOKEN,
        push_allow_networks="127.0.0.0/8",
        **pushing,
    )
    missing = queries_of_panels() | queries_of_alerts()
    assert len(missing) >= len(panels()) + len(alerts())
    with prometheus(tmp_path, started.base_url.removeprefix("http://")) as watcher:
        async with traffic(started.base_url) as client:
            leave_what_is_rare(database_url)
            deadline = monotonic() + SECONDS
            while missing:
                assert monotonic() < deadline, missing
                missing = {name: query for name, query in missing.items() if not await watcher.ask(client, query)}
                await asyncio.sleep(0.2)
            while not await watcher.ask(client, 'ALERTS{alertname="FastpubsubDeadLetters", alertstate="firing"}'):
                assert monotonic() < deadline, "the alert about dead letters does not fire"
                await asyncio.sleep(0.2)


def test_the_configuration_for_compose_is_one(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * 16)
    text = (
        (ROOT / "deploy/prometheus/compose.yaml")
        .read_text()
        .replace("/run/secrets/metrics-token", str(tmp_path / "token"))
    )
    (tmp_path / "alerts.yaml").write_bytes(RULES.read_bytes())
    (tmp_path / "prometheus.yaml").write_text(text)
    checked = subprocess.run(
        ["promtool", "check", "config", "prometheus.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
