"""What `fastpubsub doctor` looks at. It only reads, over connections of its own."""
