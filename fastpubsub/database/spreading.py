"""Spreads the topics of a database over the nodes of a cluster of Citus. Nothing else of fastpubsub knows of Citus.

Everything of a topic is on one node, together; the names, the outbox and what belongs to no topic stay on the
coordinator, where servers connect. A call for one topic runs on the node of the topic, as one statement.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import psycopg
from sqlalchemy import Connection

SCHEMA = "fastpubsub"
SHARDS = 32
"""Groups of topics that move between nodes as one. There can never be more nodes with topics than groups."""

LEAST_VERSION = (12, 0)
WHEN_AWAY = "start the node, or promote its standby and run citus_update_node"

COPIED_MEGABYTES_A_SECOND = 10
"""On a slow machine."""

BY_TOPIC = (
    "heads",
    "cursors",
    "messages",
    "claims",
    "leases",
    "retries",
    "dead_letters",
    "revived",
    "idempotency_keys",
    "redrives",
    "filter_history",
    "delayed_messages",
    "fired_messages",
    "message_keys",
    "busy_keys",
    "bundles",
    "parked",
    "failures",
    "schedules",
)
"""Tables whose rows are on the node of their topic. The others follow the first one."""

SHOWN = ("topics", "subscriptions", "outbox", "endpoints", "subscription_uses")
"""Tables of the coordinator that calls on other nodes ask: rarely, and never on the path of a message."""

AT_COORDINATOR = (
    *SHOWN,
    "alembic_version",
    "changes",
    "clients",
    "consumers",
    "dispatchers",
    "history",
    "jobs",
    "processes",
    "purges",
    "push_attempts",
    "refused_messages",
    "settlements",
)

ON_THE_NODE = frozenset(
    {
        "ack_messages_2",
        "browse_messages_2",
        "cancel_delayed_message",
        "cancel_redrive",
        "claim_messages_2",
        "create_redrive_2",
        "create_schedule",
        "delete_schedule",
        "drop_backlog",
        "explain_in_subscriptions_2",
        "explain_message_2",
        "extend_leases",
        "fire_schedule",
        "forget_outbox_keys",
        "get_delayed_message",
        "get_schema",
        "held_leases",
        "judge_last_messages",
        "lift_stranded_retries",
        "list_dead_letter_reasons",
        "list_dead_letters_2",
        "list_delayed_messages",
        "list_ready_of_topic",
        "list_redrives_2",
        "list_schedules",
        "look_at_topics",
        "move_delayed_message",
        "nack_messages",
        "pause_schedule",
        "preview_filter",
        "preview_seek",
        "publish_delayed_messages",
        "publish_due_messages",
        "publish_messages",
        "publish_messages_once",
        "publish_outbox",
        "purge_dead_letters",
        "purge_subscription",
        "read_messages_2",
        "reject_messages_2",
        "release_delayed_messages",
        "reprocess_dead_letters",
        "require_subscription",
        "return_leases",
        "seek_subscription",
        "settle_and_claim_2",
        "step_redrive",
        "subscription_metrics_2",
        "trim_claims",
        "update_schedule",
    }
)
"""Procedures that run on the node of the topic that is their first argument, when a server calls them."""

OF_A_TOPIC = ON_THE_NODE | {
    "expire_subscription",
    "find_message_2",
    "get_push_status",
    "is_paused",
    "list_consumers",
    "list_push_attempts",
    "list_refused_messages",
    "publish_refused_messages",
    "purge_refused_messages",
    "relay_messages_2",
    "release_expired_leases",
    "require_push",
    "trim_messages",
}
"""These, and those that run on the coordinator and send statements there; the topic is their first argument."""

_SHARD = re.compile(r"_[0-9]{6,}$")
_MOVED = ("could not find valid entry for shard", "duplicate key value violates unique constraint")

Kind = Literal["alone", "by topic", "shown"]


@dataclass(frozen=True, slots=True)
class Node:
    """`group` 0 is the coordinator."""

    address: str
    group: int
    is_active: bool
    has_topics: bool


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    kind: Kind
    bytes: int


@dataclass(frozen=True, slots=True)
class State:
    """What a database is, as its own catalog says."""

    version: str | None
    """Of the extension, None for a PostgreSQL without it."""

    is_coordinator: bool = True
    nodes: tuple[Node, ...] = ()
    tables: tuple[Table, ...] = ()
    copied: frozenset[str] = frozenset()
    """Functions that every node has."""

    on_the_node: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    planned_once: frozenset[str] = frozenset()
    """Functions that say that their plans serve for all values, which no plan for several nodes does."""

    prepared_transactions: int = 0
    topics: Mapping[int, int] = field(default_factory=dict)
    """How many topics each group of nodes has, once they are spread."""

    @property
    def is_spread(self) -> bool:
        return any(one.kind == "by topic" for one in self.tables)

    @property
    def topic_nodes(self) -> tuple[Node, ...]:
        return tuple(one for one in self.nodes if one.is_active and one.has_topics)


@dataclass(frozen=True, slots=True)
class Step:
    """`what` becomes what `kind` says; `bytes` are copied for it."""

    kind: Literal["table by topic", "table shown", "function planned", "function copied", "function on the node"]
    what: str
    bytes: int = 0


def refusal(state: State, head: str, revision: str | None) -> str | None:
    """Says why the database cannot be spread, and what to do; None if it can."""
    if revision != head:
        found = revision or "none"
        return f"the schema is at revision {found}, and this version needs {head}: run `fastpubsub db-migrate` first"
    if state.version is None:
        return (
            "this PostgreSQL has no extension citus in this database, so there are no other nodes: add it to "
            "shared_preload_libraries on every node, run `create extension citus` in this database on every node, and "
            "add the nodes with citus_set_coordinator_host and citus_add_node"
        )
    if number(state.version) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        return f"the extension citus has version {state.version}: upgrade it to {least} or newer"
    if not state.is_coordinator:
        return "this is a node, and topics are spread from the coordinator: let FASTPUBSUB_DATABASE_URL name that"
    if not any(one.group == 0 for one in state.nodes):
        return (
            "the coordinator is not registered, so no node can reach its names: run "
            "`select citus_set_coordinator_host('address', port)` with an address that every node can reach"
        )
    if not state.topic_nodes:
        return "the cluster has no active node for topics: run `select citus_add_node('address', port)` for each"
    if state.prepared_transactions == 0:
        return "max_prepared_transactions is 0, so no transaction could be on two nodes: set it to max_connections"
    return None


def number(version: str) -> tuple[int, ...]:
    return tuple(int(one) for one in re.findall(r"[0-9]+", version.partition("-")[0])[:2])


def steps(state: State) -> list[Step]:
    """What is still to be done, in its order; nothing for a database that is spread as this version wants it."""
    tables = {one.name: one for one in state.tables}
    shown = [tables[name] for name in SHOWN if name in tables]
    by_topic = [tables[name] for name in BY_TOPIC if name in tables]
    return [
        *(Step("table shown", one.name) for one in shown if one.kind != "shown"),
        *(Step("table by topic", one.name, one.bytes) for one in by_topic if one.kind != "by topic"),
        *(Step("function planned", name) for name in sorted(state.planned_once)),
        *(Step("function copied", name) for name in sorted(state.functions - state.copied - ON_THE_NODE)),
        *(Step("function on the node", name) for name in sorted((state.functions & ON_THE_NODE) - state.on_the_node)),
    ]


def announcement(state: State, work: Sequence[Step], shards: int) -> list[str]:
    """What the steps will do, and what they hold for how long; the answer of `db-spread --dry-run`."""
    if not work:
        return ["nothing is left to do: " + described(state)]
    tables = [one for one in work if one.kind == "table by topic"]
    functions = len({one.what for one in work if one.kind.startswith("function")})
    lines = []
    if tables:
        addresses = ", ".join(one.address for one in state.topic_nodes)
        megabytes = sum(one.bytes for one in tables) / 1e6
        seconds = 5 + megabytes / COPIED_MEGABYTES_A_SECOND
        lines += [
            f"{len(tables)} tables are divided by topic into {shards} groups, over the nodes {addresses}",
            f"{megabytes:,.0f} MB are copied to them, in one transaction, which takes about {seconds:,.0f} s; until it "
            "ends no call can read or write these tables: servers answer 503, or wait",
            "when it ends, the space of the copied rows is given back; if it fails, everything is as before",
        ]
    if functions:
        lines.append(f"{functions} functions are copied to every node; copying them holds nothing for long")
    return lines


def report(state: State, left: Sequence[Step]) -> list[str]:
    """The answer of `db-spread --status`."""
    lines = [described(state)]
    if not state.is_spread:
        return lines
    for one in state.nodes:
        role = "coordinator" if one.group == 0 else "node"
        away = "" if one.is_active else ", not active"
        lines.append(f"{role} {one.address}: {state.topics.get(one.group, 0)} topics{away}")
    if left:
        lines.append(f"left to do, by `fastpubsub db-spread`: {', '.join(f'{one.kind} {one.what}' for one in left)}")
    return lines


def described(state: State) -> str:
    """In a sentence."""
    if state.version is None:
        return "topics are on this PostgreSQL alone, which has no extension to spread them"
    if not state.is_spread:
        return "topics are on this PostgreSQL alone; `fastpubsub db-spread --dry-run` says what spreading them would do"
    many = len(state.topic_nodes)
    return f"topics are spread over {many} {'node' if many == 1 else 'nodes'}"


def unknown_tables(state: State) -> list[str]:
    """Tables of which nothing here says where their rows are."""
    return sorted({one.name for one in state.tables} - {*BY_TOPIC, *AT_COORDINATOR})


_EXTENSION = "select extversion from pg_catalog.pg_extension where extname = 'citus'"
_COORDINATOR = "select pg_catalog.citus_is_coordinator()"
_NODES = """
select nodename || ':' || nodeport, groupid, isactive, shouldhaveshards from pg_catalog.pg_dist_node
where noderole = 'primary' order by groupid
"""
_TABLES = """
select
    c.relname, case when p.partmethod = 'h' then 'by topic' when p.partmethod is not null then 'shown' else 'alone' end,
    case when p.partmethod = 'h' then 0 else pg_catalog.pg_total_relation_size(c.oid) end
from pg_catalog.pg_class as c
left join pg_catalog.pg_dist_partition as p on p.logicalrelid = c.oid
where c.relnamespace = pg_catalog.to_regnamespace('fastpubsub') and c.relkind in ('r', 'p')
order by c.relname
"""
_FUNCTIONS = """
select
    p.proname, o.objid is not null, o.distribution_argument_index is not null,
    coalesce('plan_cache_mode=force_generic_plan' = any(p.proconfig), false)
from pg_catalog.pg_proc as p
left join pg_catalog.pg_dist_object as o
    on o.classid = 'pg_catalog.pg_proc'::regclass and o.objid = p.oid and o.objsubid = 0
where
    p.pronamespace = pg_catalog.to_regnamespace('fastpubsub') and p.prokind = 'f'
    and p.prorettype <> 'pg_catalog.trigger'::regtype
"""
_TOPICS = f"""
select p.groupid, count(*)
from {SCHEMA}.topics as t
inner join pg_catalog.pg_dist_placement as p
    on p.shardid = pg_catalog.get_shard_id_for_distribution_column('{SCHEMA}.{BY_TOPIC[0]}', t.topic_key)
group by p.groupid
"""  # noqa: S608
TOPICS_BY_NODE = (
    b"select exists (select from pg_catalog.pg_extension where extname = 'citus')",
    f"""
    select n.nodename || ':' || n.nodeport, array_agg(t.topic_key)
    from pg_catalog.pg_dist_partition as d
    cross join {SCHEMA}.topics as t
    inner join pg_catalog.pg_dist_placement as p
        on p.shardid = pg_catalog.get_shard_id_for_distribution_column(d.logicalrelid, t.topic_key)
    inner join pg_catalog.pg_dist_node as n on n.groupid = p.groupid and n.noderole = 'primary'
    where d.logicalrelid = pg_catalog.to_regclass('{SCHEMA}.{BY_TOPIC[0]}')
    group by 1
    """.encode(),  # noqa: S608
)
"""Whether there can be nodes at all, and if so, the address of each that has topics, with their keys."""

TOPIC_IDS = f"""
select t.id from {SCHEMA}.topics as t
where
    t.topic_key <> all(%s) and (%s::text [] is null or t.id = any(%s))
    and (
        %s::text [] is null
        or exists (select from {SCHEMA}.subscriptions as s where s.topic_key = t.topic_key and s.id = any(%s))
    )
order by t.id collate "C"
limit %s
""".encode()  # noqa: S608
"""Of the topics beside some, of those that somebody may see."""

CLOCKS = """
select n.nodename || ':' || n.nodeport, case when r.success then r.result::double precision end
from pg_catalog.run_command_on_all_nodes(
    'select extract(epoch from clock_timestamp())', give_warning_for_connection_errors => true
) as r
inner join pg_catalog.pg_dist_node as n on n.nodeid = r.nodeid
order by n.groupid
"""
"""Each node with its time, which all are asked for at once; null where nobody answers."""

_PREPARED = "select pg_catalog.current_setting('max_prepared_transactions')::integer"


def look(connection: Connection, *, with_topics: bool = False) -> State:
    """Reads the catalog of this node only. `with_topics`: also how many of them each node has."""
    version = connection.exec_driver_sql(_EXTENSION).scalar()
    if version is None:
        return State(None)
    functions = [tuple(row) for row in connection.exec_driver_sql(_FUNCTIONS)]
    state = State(
        version,
        bool(connection.exec_driver_sql(_COORDINATOR).scalar()),
        tuple(Node(*row) for row in connection.exec_driver_sql(_NODES)),
        tuple(Table(*row) for row in connection.exec_driver_sql(_TABLES)),
        frozenset(name for name, is_copied, *_ in functions if is_copied),
        frozenset(name for name, _, is_on_the_node, _ in functions if is_on_the_node),
        frozenset(name for name, *_ in functions),
        frozenset(name for name, *_, is_planned_once in functions if is_planned_once),
        int(connection.exec_driver_sql(_PREPARED).scalar_one()),
    )
    if not (with_topics and state.is_spread):
        return state
    return replace(state, topics={int(group): int(count) for group, count in connection.exec_driver_sql(_TOPICS)})


def take(connection: Connection, work: Iterable[Step], shards: int = SHARDS) -> None:
    """Takes the steps in the transaction of the connection. Until its end nothing else reads or writes the tables."""
    work = list(work)
    if not work:
        return
    connection.exec_driver_sql("set local client_min_messages = warning")
    connection.exec_driver_sql("set local citus.multi_shard_modify_mode = 'sequential'")
    # On the nodes, too: a function in SQL may come before one that it calls.
    connection.exec_driver_sql("set local citus.propagate_set_commands = 'local'")
    connection.exec_driver_sql("set local check_function_bodies = off")
    if tables := [f"{SCHEMA}.{one.what}" for one in work if one.kind == "table by topic"]:
        connection.exec_driver_sql(f"lock table {', '.join(tables)} in access exclusive mode")
    for one in work:
        for statement in statements(one, shards):
            connection.exec_driver_sql(statement)


def statements(step: Step, shards: int) -> Iterator[str]:
    """The names are those of this file."""
    first = f"{SCHEMA}.{BY_TOPIC[0]}"
    if step.kind == "table shown":
        yield f"select citus_add_local_table_to_metadata('{SCHEMA}.{step.what}')"
    elif step.kind == "table by topic":
        others = f"colocate_with := '{first}'"
        how = others if step.what != BY_TOPIC[0] else f"shard_count := {shards}, colocate_with := 'none'"
        yield f"select create_distributed_table('{SCHEMA}.{step.what}', 'topic_key', {how})"
    elif step.kind == "function planned":
        yield f"alter function {SCHEMA}.{step.what} reset plan_cache_mode"
    else:
        where = f", 'p_topic_key', colocate_with := '{first}'" if step.kind == "function on the node" else ""
        yield (
            f"select create_distributed_function(p.oid::regprocedure{where}) from pg_catalog.pg_proc as p "  # noqa: S608
            f"where p.pronamespace = '{SCHEMA}'::regnamespace and p.proname = '{step.what}'"
        )


def free(connection: Connection, work: Iterable[Step]) -> None:
    """Gives the space of what was copied back; nothing reads it any more."""
    connection.exec_driver_sql("set local client_min_messages = warning")
    for one in work:
        if one.kind == "table by topic":
            connection.exec_driver_sql(f"select truncate_local_data_after_distributing_table('{SCHEMA}.{one.what}')")


def adjust(connection: Connection) -> None:
    """After a migration of a spread database: what is new is spread as well. Does nothing to others."""
    state = look(connection)
    if state.is_spread:
        take(connection, steps(state))


def was_moved(error: psycopg.Error) -> bool:
    """Returns whether a call ended, and stored nothing, because its topic moved to another node at that moment.

    It began on the old node and went on on the new one, without its locks there; then the primary keys end it. On one
    node they never do, and the name of a table has no number.
    """
    message = error.diag.message_primary or ""
    if error.sqlstate == "23505":
        return _SHARD.search(error.diag.table_name or "") is not None
    return error.sqlstate == "XX000" and message.startswith(_MOVED)
