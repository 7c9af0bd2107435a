"""How fast fastpubsub is: ratios of interleaved rounds on one machine. README.md has the method."""
