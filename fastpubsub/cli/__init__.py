"""The commands for people, which talk HTTP. Only `main` imports it; the commands import heavy modules inside."""
