"""What commands print for other programs."""

import csv
import io
import json

import pytest
import yaml

from fastpubsub.cli.tables import ago
from fastpubsub.client import Client
from tests.cli.conftest import Cli


def test_one_list_in_each_format(cli: Cli, bus: Client) -> None:
    bus.create_subscription("new", "orders", filter={"a,b": ['=1"', 1.50]})
    rows = [json.loads(line) for line in cli("subscriptions", "list", "-o", "json").stdout.splitlines()]
    assert [one["id"] for one in rows] == ["billing", "new"]
    assert cli("subscriptions", "list", "-o", "id").stdout == "billing\nnew\n"
    written = cli("subscriptions", "list", "--output", "yaml").stdout
    assert written.isascii()
    assert [{**one, "created_at": ""} for one in yaml.safe_load_all(written)] == [
        {**one, "created_at": ""} for one in rows
    ]
    table = list(csv.DictReader(io.StringIO(cli("subscriptions", "list", "-o", "csv").stdout)))
    assert [one["id"] for one in table] == ["billing", "new"]
    assert json.loads(table[1]["filter"]) == {"a,b": ['=1"', 1.5]}
    bus.update_topic("orders", retention_seconds=7)
    wide = cli("topics", "list", "-o", "wide").stdout.splitlines()
    assert wide[0].split() == ["ID", "RETENTION", "CREATED", "SCHEMA"]
    assert "…" not in wide[1]


def test_a_spreadsheet_runs_nothing(cli: Cli, bus: Client) -> None:
    bus.publish("orders", {"a": 1})
    bus.reject("billing", bus.pull("billing"), reason='=HYPERLINK("x")')
    (letter,) = csv.DictReader(io.StringIO(cli("dlq", "list", "billing", "-o", "csv").stdout))
    assert letter["reason"] == '\'=HYPERLINK("x")'


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s ago"), (59, "59 s ago"), (200, "3 m ago"), (-7300, "in 2 h")])
def test_how_long_ago(seconds: int, said: str) -> None:
    assert ago(seconds) == said


def test_a_refusal_names_the_option(cli: Cli) -> None:
    done = cli("subscriptions", "update", "billing", "--filter", '{"a": []}')
    assert (done.returncode, done.stderr[:22]) == (1, "fastpubsub: --filter: "), done.stderr
    done = cli("subscriptions", "create", "x y", "orders")
    assert done.stderr.startswith("fastpubsub: SUB: "), done.stderr
    done = cli("topics", "list", "--url", "http://127.0.0.1:1")
    assert "no answer from http://127.0.0.1:1" in done.stderr
