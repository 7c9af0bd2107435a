"""Systems with a defect, which the campaign must not pass: so it is known to find such defects in a running system."""

import asyncio
import signal
import sys
from collections.abc import Mapping

from tests.faults import checker, keeping, promises
from tests.faults.campaign import Fault
from tests.faults.load import expect
from tests.faults.plan import DEADLINE_SECONDS, FULL, IDLE, IDLE_SECONDS, MAX_BACKLOG, SHARED
from tests.faults.rig import Rig, Setup


def broken(defect: str) -> Setup:
    return Setup(workers=1, command=(sys.executable, "-m", "tests.faults.broken", defect))


async def kill_a_worker(rig: Rig) -> None:
    (worker,) = await rig.all_workers()
    await rig.kill(worker.pid)
    await rig.works_again()


async def be_slow(rig: Rig) -> None:
    rig.load.is_slow = True
    await asyncio.sleep(DEADLINE_SECONDS * 5)
    rig.load.is_slow = False


async def lose_what_was_not_flushed(rig: Rig) -> None:
    """Commits do not wait for the disk, and PostgreSQL ends before they come to it."""
    ((definition,),) = await rig.query("select pg_get_functiondef('fastpubsub.begin_call'::regproc)")
    await rig.query(definition.replace("'on', true", "'off', true"))
    await rig.query("checkpoint")
    await rig.load.progress()
    await rig.crash_postgres(signal.SIGQUIT)
    await rig.start_postgres()
    await rig.works_again()


async def meddle(rig: Rig) -> None:
    """With leases, and with what was acked: as a defect in the procedures would.

    A key in order would wait for ever for a lease that is gone, and if all do, the load ends instead of the checker.
    """
    await rig.query("update fastpubsub.leases set expires_at = clock_timestamp()")
    await rig.load.progress()
    await rig.query("""
        delete from fastpubsub.leases as l
        using fastpubsub.cursors as c
        where l.topic_key = c.topic_key and l.subscription_key = c.subscription_key and not c.ordered
    """)
    await rig.load.progress()
    path = "/subscriptions/t0.all/seek"
    expect(await rig.load.wire().ask("POST", path, {"to": "earliest"}), 204)
    await rig.load.progress()


PUBLISH_DUE = "v_appended := fastpubsub.publish_messages("
Changes = Mapping[str, tuple[str, str]]
CHANGES: Changes = {
    "publish_due_messages": (
        PUBLISH_DUE,
        "perform fastpubsub.publish_messages(p_topic_key, v_payloads, v_attributes, null, v_now, v_ordering_keys,"
        f" v_ttl_seconds, v_expires_at); {PUBLISH_DUE}",
    ),
    "fire_schedule": ("else p_next_at end", "else p_next_at + interval '1 second' end"),
    "publish_messages": ("p_ttl_seconds[u.ordinal])", "p_ttl_seconds[u.ordinal] + 3600)"),
    "room_to_claim": ("\nbegin\n", "\nbegin\n    return;\n"),
    "take_in_line": ("limit p_limit\n", "limit 1\n"),
    "run_transaction": ("\n    order by u.ordinal;", "\n    where false order by u.ordinal;"),
    "ack": ("perform fastpubsub.add_settlement(", "return; perform fastpubsub.add_settlement("),
}
"""Procedures that publish what is due twice, miss every second time of a schedule, let messages expire an hour late,
have no limits, give the first key in line everything, and commit one half of a transaction.
"""


async def break_promises(rig: Rig) -> None:
    """For some seconds and claims; that a dead letter holds its key is forgotten for good."""
    right = await replace(rig, CHANGES)
    await rig.query("update fastpubsub.cursors set on_dead_letter = 'continue'")
    await rig.load.progress()
    await asyncio.sleep(DEADLINE_SECONDS * 3)
    await rig.load.progress(150, [SHARED])
    await restore(rig, right)


async def replace(rig: Rig, changes: Changes) -> list[str]:
    """What the procedures were before."""
    query = "select pg_get_functiondef(p.oid) from pg_proc as p where p.oid = %s::regproc"
    right = {name: (await rig.query(query, f"fastpubsub.{name}"))[0][0] for name in changes}
    for name, (part, defect) in changes.items():
        assert right[name].count(part) == 1, f"{name} has changed: plant another defect"
        await rig.query(right[name].replace(part, defect))
    return list(right.values())


async def restore(rig: Rig, right: list[str]) -> None:
    for definition in right:
        await rig.query(definition)


LOSSES: Changes = {
    "fullest_subscription": ("\nbegin\n", "\nbegin\n    return;\n"),
    "drop_backlog": ("- v_settings.max_backlog;", "- v_settings.max_backlog / 3;"),
    "publish_dead_letters": ("order by p loop", "order by p offset 1 loop"),
    "step_redrive": ("coalesce(v_last + 1,", "coalesce(v_last + 2,"),
    "refuse_messages": ("from taken as t\n", "from taken as t where false\n"),
    "unsettled_position": (
        "return least(v_cursor.position, v_leased - 1, v_waiting - 1);",
        "return v_cursor.position;",
    ),
    "draw_due_at": (
        "p_due_at - make_interval(secs => p_seconds / 16) *",
        "p_due_at - make_interval(secs => p_seconds) *",
    ),
    "expires_at": (
        "p_expire_after_seconds + 120",
        f"(p_expire_after_seconds + 120) * (p_expire_after_seconds <> {IDLE_SECONDS})::int",
    ),
}
"""Procedures that have no limit for a backlog, drop more of it than is too much, publish no copy of the first dead
letter of several, leave some to a redrive, lose what they refuse, let a fork begin with what its original has not
seen, let jitter take more of a wait than it may, and let a subscription expire at once.
"""


FULLEST = f"{FULL}.rejecting"


async def break_what_is_kept(rig: Rig) -> None:
    """Until there is a fork more, a backlog is twice its limit, and the last server has looked for what has expired."""
    forks = len(rig.load.plan.forks)
    right = await replace(rig, LOSSES)
    path = f"/subscriptions/{FULLEST}"
    expect(await rig.load.wire().ask("POST", f"{path}/pause"), 200)
    await rig.until(
        lambda: rig.load.confirmed[FULL] - rig.load.acked[FULLEST] > 2 * MAX_BACKLOG, "publishers are too slow"
    )
    expect(await rig.load.wire().ask("POST", f"{path}/resume"), 200)
    rig.servers.append(server := rig.start_server())
    await rig.ready(server)
    await rig.until_found("select count(*) from fastpubsub.subscriptions where id = %s", 0, arguments=[IDLE])
    await rig.until(lambda: len(rig.load.plan.forks) > forks + 1, "nobody makes forks")
    await rig.load.progress(40)
    await restore(rig, right)


FORGETFUL = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}

CONTROLS = [
    (Fault("C01", "answers before the commit", kill_a_worker, 3, setup=broken("answers-before-the-commit")), {"lost"}),
    (
        Fault("C02", "does not look at the lease", be_slow, 1, setup=broken("settles-without-a-look-at-the-lease")),
        {"settled_by_others"},
    ),
    (
        Fault("C03", "commits do not wait for the disk", lose_what_was_not_flushed, 1, setup=Setup(postgres=FORGETFUL)),
        {"lost"},
    ),
    (Fault("C04", "leases end early and vanish, acks are forgotten", meddle, 1), {"lost", "overlap", "redelivered"}),
    (
        Fault("C05", "times, limits and transactions are half kept", break_promises, 1, setup=Setup(featured=True)),
        {check.__name__ for check in (checker.held, *promises.CHECKS)},
    ),
    (
        Fault("C06", "what is kept is lost, or there is too much of it", break_what_is_kept, 1, setup=Setup(kept=True)),
        {check.__name__ for check in (checker.early, *keeping.CHECKS)},
    ),
]
"""With what the checker must say, at least."""
