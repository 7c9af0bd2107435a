"""The tables of ordering keys, times, failures and push."""

from alembic import op

from fastpubsub.database.migrations import execute_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    execute_file(op.get_bind(), __file__, "up")


def downgrade() -> None:
    execute_file(op.get_bind(), __file__, "down")
