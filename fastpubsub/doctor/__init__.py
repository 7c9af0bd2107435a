"""The checks of `fastpubsub doctor`, which only reads, over its own connections."""
