"""A request for each route, for tests of what holds for all."""

from typing import Any, NamedTuple

SECRET = "a secret payload"
UUID = "550e8400-e29b-41d4-a716-446655440000"
MESSAGE = "01900000-0000-7fff-bfff-fc0000000001"
"""An id that the server has to ask the database about, and that is not there."""


class Good(NamedTuple):
    """A request that a route understands, and that changes nothing and ends: what it names is taken, or not there."""

    route: str
    body: Any = None
    query: str = ""

    @property
    def method(self) -> str:
        return self.route.split(" ")[0]

    @property
    def path(self) -> str:
        return self.with_name("nowhere" if self.route in CHANGES else "t" if "topic" in self.route else "s")

    def with_name(self, name: str) -> str:
        path = (
            self.route.split(" ")[1]
            .replace("{client_id}", UUID)
            .replace("{message_id}", MESSAGE)
            .replace("{redrive_id}", "7")
            .replace("{delayed_id}", "delayed-7")
            .replace("{schedule_id}", "tick")
        )
        before, _, after = path.partition("{")
        return f"{before}{name}{after.partition('}')[2]}" if after else path


CHANGES = {
    "PATCH /topics/{topic_id}",
    "DELETE /topics/{topic_id}",
    "POST /topics/{topic_id}/messages",
    "PATCH /subscriptions/{subscription_id}",
    "DELETE /subscriptions/{subscription_id}",
    "POST /topics/{topic_id}/release",
    "POST /topics/{topic_id}/schedules",
    "GET /topics/{topic_id}/stream",
    "GET /subscriptions/{subscription_id}/stream",
    "POST /subscriptions/{subscription_id}/pulls",
    "POST /subscriptions/{subscription_id}/redrives",
    "POST /subscriptions/{subscription_id}/pause",
    "POST /subscriptions/{subscription_id}/purge",
    "POST /subscriptions/{subscription_id}/push/secrets",
    "POST /subscriptions/{subscription_id}/push/test",
    "POST /subscriptions/{subscription_id}/push/resend",
}

GOOD = [
    Good("POST /transactions", {"settles": [{"subscription_id": "s", "acks": [f"{UUID}.5f0c1d9ae2b34c77"]}]}),
    Good("POST /topics", {"id": "t", "retention_seconds": 5}),
    Good("GET /topics", query="offset=0&limit=10"),
    Good("GET /topics/{topic_id}"),
    Good("PATCH /topics/{topic_id}", {"retention_seconds": 5}),
    Good("DELETE /topics/{topic_id}"),
    Good("POST /topics/{topic_id}/messages", [{"a": SECRET}]),
    Good("GET /topics/{topic_id}/delayed", query="state=waiting&limit=10"),
    Good("GET /topics/{topic_id}/delayed/{delayed_id}"),
    Good("PATCH /topics/{topic_id}/delayed/{delayed_id}", {"delay_seconds": 5}),
    Good("DELETE /topics/{topic_id}/delayed/{delayed_id}"),
    Good("POST /topics/{topic_id}/release"),
    Good("GET /topics/{topic_id}/refused", query="limit=10"),
    Good("POST /topics/{topic_id}/refused/publish", ["refused-7"]),
    Good("DELETE /topics/{topic_id}/refused", ["refused-7"]),
    Good("POST /topics/{topic_id}/schedules", {"id": "tick", "cron": "0 9 * * *", "payload": {"a": SECRET}}),
    Good("GET /topics/{topic_id}/schedules", query="limit=10"),
    Good("GET /topics/{topic_id}/schedules/{schedule_id}"),
    Good("PATCH /topics/{topic_id}/schedules/{schedule_id}", {"payload": {"a": SECRET}, "interval_seconds": 5}),
    Good("DELETE /topics/{topic_id}/schedules/{schedule_id}"),
    Good("POST /topics/{topic_id}/schedules/{schedule_id}/pause"),
    Good("POST /topics/{topic_id}/schedules/{schedule_id}/resume"),
    Good("POST /topics/{topic_id}/schedules/{schedule_id}/fire"),
    Good("GET /topics/{topic_id}/stream"),
    Good("POST /subscriptions", {"id": "s", "topic_id": "t", "filter": {"a": [SECRET]}, "start_from": "latest"}),
    Good("GET /subscriptions", query="offset=0&limit=10"),
    Good("GET /subscriptions/{subscription_id}"),
    Good("PATCH /subscriptions/{subscription_id}", {"filter": {"a": [SECRET]}, "ack_deadline_seconds": 5}),
    Good("DELETE /subscriptions/{subscription_id}"),
    Good("POST /subscriptions/{subscription_id}/seek", {"to": UUID}),
    Good("GET /subscriptions/{subscription_id}/metrics"),
    Good("POST /subscriptions/{subscription_id}/pause"),
    Good("POST /subscriptions/{subscription_id}/resume"),
    Good("POST /subscriptions/{subscription_id}/purge"),
    Good("GET /subscriptions/{subscription_id}/attempts", query=f"message_id={MESSAGE}&limit=10"),
    Good("POST /subscriptions/{subscription_id}/push/secrets", {"old_secret_seconds": 60}),
    Good("GET /subscriptions/{subscription_id}/push"),
    Good("POST /subscriptions/{subscription_id}/push/test", {"payload": {"a": SECRET}}),
    Good("POST /subscriptions/{subscription_id}/push/resend", {"message_id": MESSAGE}),
    Good("GET /subscriptions/{subscription_id}/messages", query="consumer_id=c&batch_size=1"),
    Good("POST /topics/{topic_id}/filter/test", {"filter": {"a": [SECRET]}, "last": 5}),
    Good("POST /subscriptions/{subscription_id}/filter/test", {"filter": {"a": [SECRET]}, "last": 5}),
    Good("GET /topics/{topic_id}/messages", query="from=1&limit=10&q=a"),
    Good("GET /subscriptions/{subscription_id}/messages/browse", query="state=ahead&from=1&limit=10&q=a"),
    Good("GET /messages/{message_id}", query="offset=0&limit=10"),
    Good("GET /subscriptions/{subscription_id}/messages/{message_id}"),
    Good("GET /subscriptions/{subscription_id}/stream", query="consumer_id=c&max_in_flight=1"),
    Good("POST /subscriptions/{subscription_id}/acks", [UUID]),
    Good("POST /subscriptions/{subscription_id}/nacks", [UUID], "delay_seconds=5"),
    Good(
        "POST /subscriptions/{subscription_id}/pulls",
        {
            "acks": [UUID],
            "nacks": [{"ids": [UUID], "delay_seconds": 5}],
            "rejects": [{"ids": [UUID], "reason": SECRET}],
            "leases": [{"ids": [UUID], "extend_seconds": 5}],
        },
        "consumer_id=c&batch_size=1",
    ),
    Good("DELETE /subscriptions/{subscription_id}/waits", query="consumer_id=c"),
    Good("POST /subscriptions/{subscription_id}/rejects", {"ids": [UUID], "reason": SECRET}),
    Good("POST /subscriptions/{subscription_id}/leases", {"ids": [UUID], "extend_seconds": 5}),
    Good(
        "GET /subscriptions/{subscription_id}/dlq",
        query="offset=0&limit=10&reason=no&died_after=2026-01-31T12:00:00Z",
    ),
    Good("POST /subscriptions/{subscription_id}/dlq/reprocess", [UUID]),
    Good("DELETE /subscriptions/{subscription_id}/dlq", [UUID]),
    Good("GET /subscriptions/{subscription_id}/dlq/reasons"),
    Good("GET /subscriptions/{subscription_id}/consumers", query="limit=10"),
    Good("POST /subscriptions/{subscription_id}/redrives", {"action": "purge", "reason": SECRET, "per_second": 5}),
    Good("GET /subscriptions/{subscription_id}/redrives"),
    Good("GET /subscriptions/{subscription_id}/redrives/{redrive_id}"),
    Good("DELETE /subscriptions/{subscription_id}/redrives/{redrive_id}"),
    Good("GET /overview"),
    Good("GET /overview/history", query="interval_seconds=60&from=1&to=2"),
    Good("GET /topics/{topic_id}/history", query="interval_seconds=5"),
    Good("GET /subscriptions/{subscription_id}/history", query="interval_seconds=5"),
    Good("POST /clients", {"name": SECRET, "scopes": "nonsense", "is_active": True}),
    Good("GET /clients", query="offset=0&limit=10"),
    Good("GET /clients/{client_id}"),
    Good("PUT /clients/{client_id}", {"name": SECRET, "scopes": "topics:read", "is_active": True}),
    Good("DELETE /clients/{client_id}"),
    Good("POST /clients/{client_id}/secrets", {"old_secret_seconds": 60}),
    Good("DELETE /clients/{client_id}/secrets/{which}"),
    Good("GET /audit", query="object=topic&object_id=t&limit=10"),
    Good("POST /oauth/token", {"client_id": UUID, "client_secret": SECRET}),
    Good("POST /oauth/introspect"),
    Good("GET /.well-known/jwks.json"),
    Good("GET /.well-known/oauth-authorization-server"),
    Good("GET /liveness"),
    Good("GET /readiness"),
    Good("GET /metrics"),
    Good("GET /"),
    Good("GET /console"),
    Good("GET /console/{release}/{name:path}"),
    Good("GET /docs"),
    Good("GET /docs/static/{name}"),
    Good("GET /redoc"),
    Good("GET /openapi.json"),
    Good("GET /guide"),
    Good("GET /guide/{name:path}"),
]
