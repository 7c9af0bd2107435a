"""Settings of a subscription that it can also be without."""

LIMITS = ("max_in_flight", "rate_limit", "expire_after_seconds", "max_backlog", "backoff_jitter")
"""Of which 0 is none."""

REMOVABLE = (*LIMITS, "dead_letter_topic", "fair_by")
"""Of which 0 or an empty text is none."""
