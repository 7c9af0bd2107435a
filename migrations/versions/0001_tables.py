"""The tables of topics, subscriptions, messages and clients."""

from alembic import op

from fastpubsub.database.migrations import execute_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    execute_file(op.get_bind(), __file__, "up")


def downgrade() -> None:
    execute_file(op.get_bind(), __file__, "down")
