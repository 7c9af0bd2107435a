"""What servers of the last release call, which are replaced after the schema."""

from alembic import op

from fastpubsub.database.migrations import execute_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    execute_file(op.get_bind(), __file__, "up")


def downgrade() -> None:
    execute_file(op.get_bind(), __file__, "down")
