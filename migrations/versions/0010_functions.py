"""The stored procedures that use that column."""

from alembic import op

from fastpubsub.database.migrations import execute_file, kept_grants

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    with kept_grants(op.get_bind(), "publish"):
        execute_file(op.get_bind(), __file__, "up")


def downgrade() -> None:
    with kept_grants(op.get_bind(), "publish"):
        execute_file(op.get_bind(), __file__, "down")
