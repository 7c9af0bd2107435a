"""Each looks at one thing and returns findings."""
