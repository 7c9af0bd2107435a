"""${message}."""

from alembic import op

from fastpubsub.database.migrations import execute_file

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    execute_file(op.get_bind(), __file__, "up")


def downgrade() -> None:
    execute_file(op.get_bind(), __file__, "down")
