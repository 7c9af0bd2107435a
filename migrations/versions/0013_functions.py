"""functions."""

from alembic import op

from fastpubsub.database.migrations import execute_file

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    execute_file(op.get_bind(), __file__, "up")


def downgrade() -> None:
    execute_file(op.get_bind(), __file__, "down")
