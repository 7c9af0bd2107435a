"""The table of messages that are refused, and the column of fair sharing."""

from alembic import op

from fastpubsub.database.migrations import execute_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    execute_file(op.get_bind(), __file__, "up")


def downgrade() -> None:
    execute_file(op.get_bind(), __file__, "down")
