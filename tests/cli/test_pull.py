import json
import os
import signal

import pytest

from fastpubsub.client import Client
from tests import harness
from tests.cli.conftest import Cli, Start, until
from tests.conftest import StartServer


def publish(bus: Client, count: int, size: int = 0) -> None:
    payloads = [{"n": n, "text": "x" * size} for n in range(count)]
    for start in range(0, count, 100):
        bus.publish("orders", *payloads[start : start + 100])


def counts(bus: Client) -> tuple[int, int, int]:
    metrics = bus.metrics("billing")
    return metrics.available, metrics.delivered, metrics.acked


def numbers(text: str) -> list[int]:
    """Of whole lines."""
    return [json.loads(line)["payload"]["n"] for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_it_holds_what_it_prints(cli: Cli, bus: Client) -> None:
    publish(bus, 15)
    done = cli("pull", "billing")
    assert (done.returncode, done.stderr, numbers(done.stdout)) == (0, "", list(range(10)))
    assert counts(bus) == (5, 10, 0)
    bus.ack("billing", [json.loads(line)["ack_id"] for line in done.stdout.splitlines()])
    assert counts(bus) == (5, 0, 10)


def test_acknowledging(cli: Cli, bus: Client) -> None:
    publish(bus, 250)
    assert numbers(cli("pull", "billing", "--ack", "--max", "120").stdout) == list(range(120))
    assert counts(bus) == (130, 0, 120)
    assert numbers(cli("pull", "billing", "--ack", "-n", "1000").stdout) == list(range(120, 250))
    empty = cli("pull", "billing", "--wait", "1")
    assert (empty.returncode, empty.stdout) == (0, "")


@pytest.mark.parametrize("ack", [True, False])
def test_a_reader_that_goes_away(start: Start, bus: Client, ack: bool) -> None:
    """What it could not write is there for others at once; what it wrote counts as printed."""
    publish(bus, 90, size=10_000)
    reading, writing = os.pipe()
    pulling = start("pull", "billing", "--max", "90", *(["--ack"] if ack else []), stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        got = b""
        while b"\n" not in got:
            got += pipe.read(1000)
    assert (pulling.end(), pulling.errors) == (0, "")
    available, delivered, acked = counts(bus)
    printed = acked if ack else delivered
    assert (1 <= printed < 90, available, acked + delivered) == (True, 90 - printed, printed)


def test_ctrl_c_gives_back_what_is_not_written(start: Start, bus: Client) -> None:
    publish(bus, 90, size=10_000)
    reading, writing = os.pipe()
    pulling = start("pull", "billing", "--follow", "--ack", stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        until(lambda: counts(bus)[1] == 90)
        first = pipe.readline()
        assert pulling.end(signal.SIGINT) == 0
        printed = numbers((first + pipe.read()).decode())
    assert pulling.errors == ""
    available, delivered, acked = counts(bus)
    # Ctrl-C may come after the last byte and before that is known: then the message comes again.
    assert (available, delivered, len(printed) - acked in (0, 1)) == (90 - acked, 0, True)
    assert printed == list(range(len(printed)))


def test_following(start: Start, bus: Client) -> None:
    pulling = start("pull", "billing", "--follow", "--ack", "--max", "250")
    publish(bus, 1)
    pulling.until_printed(1)
    publish(bus, 300)
    assert pulling.end() == 0
    assert numbers(pulling.output) == [0, *range(249)]
    assert counts(bus) == (51, 0, 250)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_following(start: Start, bus: Client, number: signal.Signals) -> None:
    pulling = start("pull", "billing", "--follow")
    publish(bus, 1)
    pulling.until_printed(1)
    assert (pulling.end(number), pulling.errors) == (0, "")


def test_following_survives_the_server(server: StartServer, bus: Client, start: Start) -> None:
    port = harness.free_port()
    killed = server(api_port=port)
    bus.update_subscription("billing", ack_deadline_seconds=5)  # of what was printed and not acknowledged
    pulling = start("pull", "billing", "--follow", "--ack", url=killed.base_url)
    publish(bus, 1)
    pulling.until_printed(1)
    killed.kill()
    pulling.until(lambda: "trying again until it works" in pulling.errors)
    publish(bus, 150)
    server(api_port=port)
    pulling.until(lambda: counts(bus) == (0, 0, 151))
    assert pulling.end(signal.SIGINT) == 0
    assert set(numbers(pulling.output)) == set(range(150))
    assert "it works again" in pulling.errors
    assert "Traceback" not in pulling.errors


def test_what_fails_at_first_fails(cli: Cli) -> None:
    done = cli("pull", "nope", "--follow")
    assert (done.returncode, done.stderr) == (1, 'fastpubsub: subscription "nope" does not exist\n')
    url = f"http://user:hunter2@127.0.0.1:{harness.free_port()}"
    away = cli("pull", "billing", "--follow", url=url)
    assert away.returncode == 1
    assert "does a server run there?" in away.stderr
    assert "hunter2" not in away.stderr
