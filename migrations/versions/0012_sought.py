"""The columns that say which dead letters a seek may have made come again."""

from alembic import op

from fastpubsub.database.migrations import execute_file

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    execute_file(op.get_bind(), __file__, "up")


def downgrade() -> None:
    execute_file(op.get_bind(), __file__, "down")
