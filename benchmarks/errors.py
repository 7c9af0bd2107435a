"""What ends a benchmark."""


class BenchmarkError(RuntimeError):
    """One sentence: why there is no figure, and what to do."""
