"""What `pull` printed is settled, and looked at before."""

import json

from fastpubsub.client import Client
from tests.cli.conftest import Cli


def test_what_pull_printed_is_settled(cli: Cli, bus: Client) -> None:
    bus.publish("orders", *({"n": n} for n in range(5)))
    pulled = cli("pull", "billing").stdout
    first, *others = (json.loads(line) for line in pulled.splitlines())
    assert cli("ack", "billing", first["ack_id"]).stderr == "acknowledged 1 message of billing\n"
    again = cli("ack", "billing", first["ack_id"])
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == (
        "acknowledged 0 messages of billing\n"
        f"fastpubsub: billing no longer holds 1 message: {first['ack_id']}; `explain` says why\n"
    )
    assert cli("extend", "billing", others[0]["id"], "--seconds", "600").stderr == "extended 1 message of billing\n"
    assert cli("reject", "billing", others[0]["id"], "--reason", "no").stderr == "rejected 1 message of billing\n"
    assert [one.reason for one in bus.list_dead_letters("billing")] == ["no"]
    given = "\n".join([json.dumps(others[1]), others[2]["id"], ""])
    assert cli("nack", "billing", "-", given=given).stderr == "gave back 2 messages of billing\n"
    bad = cli("ack", "billing", "-", given='{"id": 1')
    assert (bad.returncode, "line 1 of standard input" in bad.stderr) == (2, True)
    assert cli("ack", "billing", "-").returncode == 2


def test_browsing_takes_nothing(cli: Cli, bus: Client) -> None:
    ids = bus.publish("orders", *({"n": n} for n in range(150)))
    seen = cli("browse", "billing", "--limit", "120")
    assert [json.loads(line)["id"] for line in seen.stdout.splitlines()] == ids[:120]
    assert seen.stderr == "looked at 120 messages\n"
    found = cli("browse", "orders", "--topic", "-q", "payload.n=149")
    assert [json.loads(line)["payload"] for line in found.stdout.splitlines()] == [{"n": 149}]
    assert cli("browse", "billing", "--state", "leased", "-o", "id").stdout == ""
    assert bus.metrics("billing").delivered == 0
