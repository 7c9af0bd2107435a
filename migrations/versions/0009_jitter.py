"""The column for jitter of the backoff."""

from alembic import op

from fastpubsub.database.migrations import execute_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    execute_file(op.get_bind(), __file__, "up")


def downgrade() -> None:
    execute_file(op.get_bind(), __file__, "down")
