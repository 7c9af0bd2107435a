import json
import os
import signal
import subprocess
from pathlib import Path

from fastpubsub.client import Client
from tests.cli.conftest import Cli, Start
from tests.conftest import StartServer


def stored(bus: Client) -> int:
    return bus.metrics("billing").available


def numbers(bus: Client, count: int) -> list[int]:
    return [message.payload["n"] for message in bus.pull("billing", batch_size=count)]


def test_arguments(cli: Cli, bus: Client) -> None:
    done = cli("publish", "orders", '{"n": 1}', '{"n": 2, "text": "日本 😀"}', "-a", "source=shop", "-a", "empty=")
    assert (done.returncode, done.stderr) == (0, "published 2 messages to orders\n")
    first, second = bus.pull("billing")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"id": str(first.id)}, {"id": str(second.id)}]
    assert second.payload == {"n": 2, "text": "日本 😀"}
    assert first.attributes == second.attributes == {"source": "shop", "empty": ""}


def test_messages_that_expire(cli: Cli, bus: Client) -> None:
    assert cli("publish", "orders", '{"n": 1}', "--expires-at", "2020-01-31T12:00:00Z").returncode == 0
    assert cli("publish", "orders", '{"n": 2}', "--ttl-seconds", "600").returncode == 0
    assert (
        "one of them"
        in cli("publish", "orders", "{}", "--ttl-seconds", "5", "--expires-at", "2030-01-31T12:00:00Z").stderr
    )
    assert numbers(bus, 10) == [2]
    assert cli("subscriptions", "update", "billing", "--on-expired", "dead_letter").returncode == 0
    assert bus.get_subscription("billing").on_expired == "dead_letter"
    assert '"on_expired":"dead_letter"' in cli("subscriptions", "show", "billing", "-o", "json").stdout
    assert "on_expired: dead_letter" in cli("export").stdout


def test_a_limit_on_the_backlog(cli: Cli, bus: Client) -> None:
    update = ("subscriptions", "update", "billing")
    assert cli(*update, "--max-backlog", "1", "--on-full", "drop_oldest").returncode == 0
    assert "max_backlog: 1\n" in (exported := cli("export").stdout)
    assert "on_full: drop_oldest" in exported
    assert cli(*update, "--on-full", "reject").returncode == 0
    assert "on_full" not in cli("export").stdout
    assert cli(*update, "--max-backlog", "0").returncode == 0
    assert bus.get_subscription("billing").max_backlog is None


def test_payloads_stay_as_they_are_written(cli: Cli) -> None:
    text = '{"b": 1.10, "a": 12345678901234567890123, "b": "\\u00e9\u2028"}'
    assert cli("publish", "orders", text).returncode == 0
    assert f'"payload":{text},' in cli("pull", "billing").stdout


def test_lines_of_standard_input(cli: Cli, bus: Client) -> None:
    lines = "".join(f'{{"n": {n}}}\n' for n in range(1234))
    done = cli("publish", "orders", "-", given=lines)
    assert done.returncode == 0, done.stderr
    assert len({json.loads(line)["id"] for line in done.stdout.splitlines()}) == stored(bus) == 1234
    assert numbers(bus, 100) == list(range(100))


def test_files(cli: Cli, bus: Client, tmp_path: Path) -> None:
    for name, first in (("a.jsonl", 0), ("b.jsonl", 2)):
        (tmp_path / name).write_text(f'{{"n": {first}}}\n{{"n": {first + 1}}}')
    done = cli("publish", "orders", "--file", "a.jsonl", "-f", "b.jsonl", "--no-ids")
    assert (done.returncode, done.stdout) == (0, "")
    assert numbers(bus, 10) == [0, 1, 2, 3]


def test_what_comes_slowly_is_sent_at_once(start: Start, bus: Client) -> None:
    publishing = start("publish", "orders", "-", stdin=subprocess.PIPE)
    stdin = publishing.process.stdin
    assert stdin is not None
    for n in range(2):
        stdin.write(b'{"n": %d}\n' % n)
        stdin.flush()
        publishing.until_printed(n + 1)
    stdin.close()
    assert publishing.end() == 0
    assert stored(bus) == 2


def test_ctrl_c_says_how_far_it_came(start: Start, bus: Client) -> None:
    publishing = start("publish", "orders", "-", stdin=subprocess.PIPE)
    stdin = publishing.process.stdin
    assert stdin is not None
    with stdin:
        stdin.write(b'{"n": 1}\n\n{"n": 2}\n')
        stdin.flush()
        publishing.until_printed(2)
        assert publishing.end(signal.SIGINT) == 130
    assert publishing.errors.startswith(
        "fastpubsub: interrupted. 2 messages were published, up to line 3 of standard input, and nothing after it"
    )


def test_a_bad_line_says_how_to_go_on(cli: Cli, bus: Client, tmp_path: Path) -> None:
    lines = [f'{{"n": {n}}}' for n in range(600)]
    lines[550] = '{"n": 550'
    (tmp_path / "orders.jsonl").write_text("\n".join(lines))
    done = cli("publish", "orders", "--file", "orders.jsonl")
    assert (done.returncode, done.stdout.count("\n"), stored(bus)) == (1, 500, 500)
    assert done.stderr.startswith("fastpubsub: line 551 of orders.jsonl is not JSON: ")
    assert "500 messages were published, up to line 500 of orders.jsonl, and nothing after it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    again = done.stderr.rstrip().rpartition("continue with: ")[2]
    assert again == "tail -n +501 orders.jsonl | fastpubsub publish orders -"
    lines[550] = '{"n": 550}'
    (tmp_path / "orders.jsonl").write_text("\n".join(lines))
    rest = subprocess.run(["tail", "-n", "+501", "orders.jsonl"], cwd=tmp_path, capture_output=True, text=True)
    assert cli("publish", "orders", "-", given=rest.stdout).returncode == 0
    pulled = [n for _ in range(6) for n in numbers(bus, 100)]
    assert pulled == list(range(600))


def test_bad_arguments_publish_nothing(cli: Cli, bus: Client) -> None:
    done = cli("publish", "orders", "{}", "[1]")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        'fastpubsub: argument 2 is not a JSON object; a payload must be one, such as {"a": 1}. Nothing was published\n'
    )
    assert stored(bus) == 0


def test_what_the_server_refuses_has_its_line(cli: Cli, bus: Client) -> None:
    cli("topics", "update", "orders", "--schema", '{"properties": {"n": {"type": "integer"}}}')
    lines = [*(f'{{"n": {n}}}' for n in range(500)), "", "{}", '{"n": "1"}', "{}"]
    done = cli("publish", "orders", "-", given="\n".join(lines))
    assert (done.returncode, stored(bus)) == (1, 500)
    assert "line 503 of standard input" in done.stderr
    assert "500 messages were published, up to line 500 of standard input, and nothing after it" in done.stderr


def test_a_server_that_takes_less_at_once(server: StartServer, cli: Cli, bus: Client) -> None:
    small = server(publish_max_messages=100)
    lines = "".join(f'{{"n": {n}}}\n' for n in range(450))
    assert cli("publish", "orders", "-", given=lines, url=small.base_url).returncode == 0
    assert [n for _ in range(5) for n in numbers(bus, 100)] == list(range(450))


def test_the_same_key_publishes_once(cli: Cli, bus: Client) -> None:
    first, again = (cli("publish", "orders", "{}", "--idempotency-key", "order-1") for _ in range(2))
    assert first.stdout == again.stdout != ""
    assert stored(bus) == 1


def test_it_goes_on_when_nobody_reads_the_ids(start: Start, bus: Client, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("{}\n" * 1500)
    reading, writing = os.pipe()
    os.close(reading)
    publishing = start("publish", "orders", "--file", "lines", stdout=writing)
    os.close(writing)
    assert publishing.end() == 0
    assert (publishing.errors, stored(bus)) == ("published 1500 messages to orders\n", 1500)


def test_wrong_usage(cli: Cli) -> None:
    for arguments in (
        ["orders"],
        ["orders", "-", "{}"],
        ["orders", "-f", "nowhere.jsonl"],
        ["orders", "-f", "."],
        ["orders", "{}", "-a", "nothing"],
        ["..", "{}"],
        ["orders", "-", "--idempotency-key", "order-1"],
    ):
        done = cli("publish", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "Traceback" not in done.stderr


def test_a_topic_that_does_not_exist(cli: Cli) -> None:
    done = cli("publish", "nope", "{}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'fastpubsub: topic "nope" does not exist. Nothing was published\n'
