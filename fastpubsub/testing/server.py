"""The HTTP API over the store in memory: the routes that clients and workers use."""

from datetime import datetime
from urllib.parse import unquote

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from fastpubsub import models
from fastpubsub.client.decimals import write_exactly
from fastpubsub.exceptions import FastpubsubError, NotFound
from fastpubsub.testing.answers import invalid, problem
from fastpubsub.testing.calls import ROUTES, Answer, Call, route
from fastpubsub.testing.consuming import Consuming
from fastpubsub.testing.dead_letters import DeadLetters
from fastpubsub.testing.delayed import DelayedMessages
from fastpubsub.testing.looking import Looking
from fastpubsub.testing.past import Past
from fastpubsub.testing.refused import Refused
from fastpubsub.testing.schedules import Schedules
from fastpubsub.testing.subscriptions import Subscriptions
from fastpubsub.testing.topics import Topics
from fastpubsub.testing.transactions import Transactions


class MemoryServer(
    Topics, Subscriptions, Consuming, DeadLetters, DelayedMessages, Refused, Schedules, Transactions, Looking, Past
):
    def answer(self, request: httpx.Request) -> httpx.Response:
        """The body of the request was read."""
        self.store.now += datetime.resolution  # as on a server, no two calls are at the same time
        self.store.publish_due()
        self.store.drop_backlogs()
        try:
            status, body = self._call(request)
        except ValidationError as error:
            return invalid(error)
        except FastpubsubError as error:
            return problem(error.status, error.title, error.detail)
        content = write_exactly(body.model_dump(), to_json) if isinstance(body, BaseModel) else body
        headers = {} if content is None else {"Content-Type": "application/json"}
        return httpx.Response(status, headers=headers, content=content)

    def _call(self, request: httpx.Request) -> Answer:
        path = request.url.raw_path.decode().partition("?")[0]
        for one in ROUTES:
            match = one.path.fullmatch(path)
            if match and one.method == request.method:
                ids = [unquote(part) for part in match.groups()]
                call = Call(ids, request.url.params, request.headers, request.content)
                status, body = one.handler(self, call)
                self.store.count()
                if one.action is not None and not isinstance(body, models.SeekPreview):
                    self.record(call, one, body)
                return status, body
        raise NotFound("there is nothing at this path of the bus in memory")

    @route("POST", "/oauth/token")
    def token(self, _call: Call) -> Answer:
        return 201, models.Token(access_token="in-memory", token_type="Bearer", expires_in=3600, scope="*")  # noqa: S106
