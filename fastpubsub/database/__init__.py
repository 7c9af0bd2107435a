"""All access to PostgreSQL: procedure calls, their connections, the migrations."""
