"""The migrated schema in a scratch PostgreSQL: `python -m tests.procedures check` (plpgsql_check) or `print`."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg

from fastpubsub.database import migrations
from fastpubsub.embedded import EmbeddedPostgres, packaged
from tests import spreading
from tests.harness import libpq
from tests.installations import system

LITERAL_OR_COMMENT = re.compile(r"'[^']*'|\s*--.*\S")
NOT_OURS = re.compile(r"\b[A-Z]{2,}\b|\t|\s$")
PROBLEMS = """
    select p.oid::regprocedure::text, c.level, c.lineno, coalesce(c.statement, ''), c.message, coalesce(c.hint, '')
    from pg_proc as p
    join pg_language as l on l.oid = p.prolang and l.lanname = 'plpgsql'
    cross join lateral plpgsql_check_function_tb(
        p.oid, fatal_errors => false, extra_warnings => true, security_warnings => true, performance_warnings => false
    ) as c
    -- A warning 42804 is about '{}', which is of no type until it is assigned.
    where p.pronamespace = 'fastpubsub'::regnamespace and p.prorettype <> 'trigger'::regtype
        and not (c.level = 'warning' and c.sqlstate = '42804')
    order by 1, 3
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="fastpubsub_scratch-") as folder:
        match sys.argv[1:]:
            case ["check"]:
                return check(Path(folder))
            case ["print"]:
                return dump(Path(folder))
    print(__doc__, file=sys.stderr)
    return 2


def check(folder: Path) -> int:
    return max(check_style(), check_spreading(), check_meaning(folder))


def sources() -> dict[str, str]:
    return {file.stem: file.read_text() for file in sorted((migrations.folder() / "functions").glob("*.sql"))}


def check_style() -> int:
    """Of the bodies, which are one long string to sqlfluff."""
    problems = [
        f"{name}.sql, line {number}: {word!r}"
        for name, source in sources().items()
        for number, line in enumerate(source.splitlines(), start=1)
        for word in NOT_OURS.findall(LITERAL_OR_COMMENT.sub("''", line))
    ]
    print("\n".join([*problems, f"lower-case words, no tabs, no space at the end of a line: {len(problems)} problems"]))
    return 1 if problems else 0


def check_spreading() -> int:
    """Whether each topic could be on a node of its own: tests/spreading.py."""
    problems = spreading.check(sources())
    print("\n".join([*problems, f"statements on one topic: {len(problems)} problems"]))
    return 1 if problems else 0


def check_meaning(folder: Path) -> int:
    for installation in reversed(system()):
        with (
            EmbeddedPostgres(folder / str(installation.major), binaries=Path(installation.setting)) as server,
            psycopg.connect(libpq(server.url()), autocommit=True) as connection,
        ):
            if connection.execute("select from pg_available_extensions where name = 'plpgsql_check'").rowcount == 0:
                continue
            migrations.upgrade(server.url())
            connection.execute("create extension plpgsql_check")
            problems = connection.execute(PROBLEMS).fetchall()
        for function, level, line, statement, message, hint in problems:
            print(f"{function}, line {line} {statement}: {level}: {message} {hint}")
        print(f"plpgsql_check on {installation.name}: {len(problems)} problems")
        return 1 if problems else 0
    print("plpgsql_check: not checked, no PostgreSQL here has it (on Debian and Ubuntu: postgresql-NN-plpgsql-check)")
    return 0


def dump(folder: Path) -> int:
    with EmbeddedPostgres(folder / "data") as server:
        migrations.upgrade(server.url())
        options = ["--schema-only", f"--schema={migrations.SCHEMA}", "--no-owner", libpq(server.url())]
        return subprocess.run([str(packaged(18) / "pg_dump"), *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
