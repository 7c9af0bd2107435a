import json
import os
import signal

import httpx
import pytest

from fastpubsub.client import Client
from tests import harness
from tests.cli.conftest import Cli, Running, Start, until
from tests.conftest import StartServer


def numbers(tailing: Running) -> list[int]:
    return [json.loads(line)["payload"]["n"] for line in tailing.output.splitlines()]


def listening(tailing: Running, bus: Client) -> None:
    """It prints what is published until it does."""

    def printed() -> bool:
        bus.publish("orders", {"n": -1})
        return "\n" in tailing.output

    tailing.until(printed)


def publish(bus: Client, count: int) -> str:
    """The id of the first."""
    ids = [bus.publish("orders", *({"n": n} for n in range(start, start + 500)))[0] for start in range(0, count, 500)]
    return ids[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_until_a_signal(start: Start, bus: Client, number: signal.Signals) -> None:
    tailing = start("tail", "orders")
    listening(tailing, bus)
    bus.publish("orders", {"n": 7, "text": "日本\u2028"})
    tailing.until(lambda: '"n":7' in tailing.output)
    assert (tailing.end(number), tailing.errors) == (0, "")


def test_from_a_message(start: Start, bus: Client) -> None:
    first = publish(bus, 2500)
    tailing = start("tail", "orders", "--from", first)
    tailing.until_printed(2499)
    assert numbers(tailing) == list(range(1, 2500))


def test_only_what_passes_a_filter(start: Start, bus: Client) -> None:
    first = publish(bus, 500)
    tailing = start("tail", "orders", "--from", first, "--filter", '{"n": [{"numeric": [">=", 397.50]}]}')
    tailing.until_printed(102)
    assert numbers(tailing) == list(range(398, 500))
    refused = start("tail", "orders", "--filter", '{"n": 1}')
    refused.until(lambda: refused.process.poll() is not None)
    assert "--filter" in refused.errors


def test_a_reader_that_goes_away(start: Start, bus: Client) -> None:
    first, *_ = bus.publish("orders", *({"n": n} for n in range(3)))
    reading, writing = os.pipe()
    tailing = start("tail", "orders", "--from", first, stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert json.loads(pipe.readline())["payload"] == {"n": 1}
    bus.publish("orders", {"n": 3})
    assert (tailing.end(), tailing.errors) == (0, "")


@pytest.mark.parametrize("seen", [True, False])
def test_nothing_is_missed_while_the_server_is_away(server: StartServer, bus: Client, start: Start, seen: bool) -> None:
    """Also when nothing was seen before: the stream itself says where it began."""
    port = harness.free_port()
    killed = server(api_port=port)
    tailing = start("tail", "orders", url=killed.base_url)
    if seen:
        listening(tailing, bus)
        killed.kill()
    else:
        until(lambda: "fastpubsub_open_streams 1.0" in httpx.get(f"{killed.base_url}/metrics").text)
        killed.stop()
    tailing.until(lambda: "trying again until it works" in tailing.errors)
    publish(bus, 1500)
    server(api_port=port)
    tailing.until(lambda: '"n":1499}' in tailing.output and tailing.output.endswith("\n"))
    assert [n for n in numbers(tailing) if n >= 0] == list(range(1500))
    assert "it works again" in tailing.errors
    assert tailing.end(signal.SIGINT) == 0


def test_a_topic_that_is_deleted(start: Start, bus: Client) -> None:
    tailing = start("tail", "orders")
    listening(tailing, bus)
    bus.delete_topic("orders")
    assert tailing.end() == 1
    assert tailing.errors.splitlines()[-1] == 'fastpubsub: topic "orders" does not exist'


def test_what_is_refused(cli: Cli) -> None:
    assert cli("tail", "nope").stderr == 'fastpubsub: topic "nope" does not exist\n'
    wrong = cli("tail", "orders", "--from", "yesterday")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "a message id is a UUID" in wrong.stderr
