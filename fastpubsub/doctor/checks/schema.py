"""Our schema: its revision, and what the role may do in it."""

from fastpubsub.database import migrations
from fastpubsub.doctor.connection import DoctorConnection
from fastpubsub.doctor.findings import Finding, ok, problem

IS_MIGRATED = """
select c.oid is not null, coalesce(pg_catalog.has_schema_privilege(n.oid, 'usage'), false), current_user
from (select pg_catalog.to_regnamespace('fastpubsub') as oid) as n
left join pg_catalog.pg_class as c on c.relnamespace = n.oid and c.relname = 'alembic_version'
"""
REVISION = "select version_num from fastpubsub.alembic_version"

NOT_ALLOWED = """
select c.relname, c.relname = 'alembic_version'
from pg_catalog.pg_class as c
where
    c.relnamespace = pg_catalog.to_regnamespace('fastpubsub') and c.relkind in ('r', 'p')
    and not (
        pg_catalog.has_table_privilege(c.oid, 'select')
        and (
            c.relname = 'alembic_version'
            or pg_catalog.has_table_privilege(c.oid, 'insert')
            and pg_catalog.has_table_privilege(c.oid, 'update')
            and pg_catalog.has_table_privilege(c.oid, 'delete')
        )
    )
order by c.relname
"""


async def examine_schema(database: DoctorConnection) -> list[Finding]:
    ((is_migrated, may_use, role),) = await database.ask(IS_MIGRATED)
    if not is_migrated:
        why, next_step = "servers are not ready without it", "fastpubsub db-migrate"
        return [problem("schema", "the database has no fastpubsub schema", why, next_step)]
    denied = await database.ask(NOT_ALLOWED)
    if not may_use or any(is_revision for _, is_revision in denied):
        return [privileges(role, ["the schema fastpubsub"])]
    found = ", ".join(str(one) for (one,) in await database.ask(REVISION)) or "none"
    return [revision(found), *([privileges(role, [name for name, _ in denied])] if denied else [])]


def revision(found: str) -> Finding:
    head = migrations.head()
    if found == head:
        return ok("schema", f"the schema is at revision {found}, as this version needs")
    why = "servers are ready only with exactly their schema"
    what = f"the schema is at revision {found}, and this version needs {head}"
    if migrations.is_known(found):
        return problem("schema", what, why, "fastpubsub db-migrate")
    return problem("schema", what, why, "install the newer fastpubsub that migrated it")


def privileges(role: str, names: list[str]) -> Finding:
    return problem(
        "privileges",
        f"the role {role} may not read and write {', '.join(names)}",
        "servers with this role answer 500 or 503",
        "grant it the rights that docs/operations.md lists under Roles",
    )
