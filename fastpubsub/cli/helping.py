"""Help: commands in groups, and examples."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

GROUPS = {
    "Messages": ("publish", "pull", "tail", "listen", "ack", "nack", "reject", "extend", "delayed", "refused", "dlq"),
    "Objects": ("topics", "subscriptions", "schedules", "clients", "filter", "export", "apply"),
    "Looking": ("status", "top", "open", "browse", "explain", "consumers", "mcp"),
    "Operating": (
        *(
            "server",
            "push",
            "db-migrate",
            "db-spread",
            "doctor",
            "healthcheck",
            "worker",
            "create_client",
            "generate_secret_key",
        ),
        *("cleanup_acked_messages", "cleanup_stuck_messages"),
    ),
    "Local": ("dev", "asyncapi", "context", "completion"),
}
"""The commands of the whole; those of a group of commands are one group."""

LONG = 200
"""Letters of a sentence about a command; it goes on in the next line."""


class Group(TyperGroup):
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {
            name: one for name in self.list_commands(ctx) if (one := self.get_command(ctx, name)) and not one.hidden
        }
        groups = {"Commands": tuple(shown)} if ctx.parent else GROUPS
        width = max(map(len, shown), default=0)
        for title, names in groups.items():
            # Equally wide, so that the sentences stand below each other.
            rows = [(f"{name:{width}}", shown[name].get_short_help_str(LONG)) for name in names if name in shown]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(ctx, formatter)


class Command(TyperCommand):
    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(ctx, formatter)


def _write_examples(ctx: Any, formatter: Any) -> None:
    from fastpubsub.cli.examples import EXAMPLES

    names: list[str] = []
    while ctx.parent:
        names.insert(0, ctx.info_name)
        ctx = ctx.parent
    if examples := EXAMPLES.get(" ".join(names)):
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
