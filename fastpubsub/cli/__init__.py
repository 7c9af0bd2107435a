"""The commands for people, which talk HTTP. Only `main` imports it; what is heavy is imported inside the commands."""
