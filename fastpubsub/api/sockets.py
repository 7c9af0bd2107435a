"""WebSockets: the stream of a subscription with settling inline. Everything else that wants to be one is refused."""

import contextlib
import functools
import logging
import re
from dataclasses import dataclass
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import State
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from fastpubsub.api import errors
from fastpubsub.api.frames import FrameSettler, end_frame, message_frames
from fastpubsub.api.requests import check_query, stream_parameters
from fastpubsub.api.security import header_token
from fastpubsub.api.streams import LEFT, Beside, Stream, finish
from fastpubsub.exceptions import FastpubsubError, InvalidRequest, NotFound, PermissionDenied, Unauthenticated
from fastpubsub.scopes import ANONYMOUS, Caller

logger = logging.getLogger(__name__)

PATH = "/subscriptions/{subscription_id}/ws"
PARAMETERS = frozenset({"consumer_id", "max_in_flight", "access_token"})
SUBPROTOCOL = "bearer"
GOING_AWAY = 1001
BROKEN = "the server failed unexpectedly; its log has the error"
_PATH = re.compile(r"/subscriptions/([^/]+)/ws")


@dataclass(frozen=True)
class Route:
    path: str


class Sockets:
    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._app
        connection = cast(Request, HTTPConnection(scope))
        connection.query_params  # noqa: B018 - read now: uvicorn would log the query, and a token may be in it
        scope["query_string"] = b""
        try:
            socket = await self._open(connection)
        except FastpubsubError as error:
            await (await errors.refused(connection, error))(scope, receive, send)
        except RequestValidationError as error:
            await (await errors.invalid(connection, error))(scope, receive, send)
        else:
            await socket.run(receive, send)

    async def _open(self, connection: Request) -> "_Socket":
        scope = connection.scope
        if why := self._app.state.browsers.refusal(scope):
            raise PermissionDenied(why)
        match = _PATH.fullmatch(scope["path"].removeprefix(scope.get("root_path", "")))
        if match is None or "\x00" in match[1]:
            raise NotFound("there is no WebSocket at this path")
        if any("\x00" in value for _, value in connection.query_params.multi_items()):
            raise InvalidRequest("the query has a NUL character; leave it out")
        scope["route"] = Route(PATH)
        state = self._app.state
        token = _token(connection) if state.authenticator.enabled else None
        caller = await _identify(connection, token)
        scope["state"]["caller"] = caller
        caller.require("subscriptions:consume", match[1])
        check_query(connection, PARAMETERS)
        consumer_id, max_in_flight = stream_parameters(connection)
        state.streams.require_room()
        await state.claiming.require(match[1])
        protocol = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        return _Socket(state, match[1], consumer_id, max_in_flight, token, protocol)


class _Socket:
    def __init__(
        self,
        state: State,
        subscription_id: str,
        consumer_id: str,
        max_in_flight: int,
        token: bytes | None,
        protocol: str | None,
    ) -> None:
        self._streams = state.streams
        self._subscription_id = subscription_id
        self._deliveries = state.deliveries.stream(subscription_id, consumer_id, max_in_flight)
        look_again = functools.partial(state.authenticator.look_again, token)
        self._settler = FrameSettler(state.settling, subscription_id, state.settings.settle_max_ids, look_again)
        self._token = token
        self._protocol = protocol

    async def run(self, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        await send({"type": "websocket.accept", "subprotocol": self._protocol})
        reason = None
        async with (
            contextlib.aclosing(self._deliveries),
            self._streams.hold(send, self._token, self._listener(receive)) as stream,
        ):
            try:
                async for delivery in self._deliveries:
                    for frame in message_frames(delivery.claim, self._subscription_id):
                        await self._streams.look_again(stream)
                        await stream.send(_text(frame))
                        delivery.is_sent = True
            except FastpubsubError as error:
                reason = error.detail
            except OSError:  # uvicorn's, when the connection is gone
                reason = LEFT
        reason = stream.reason or reason
        farewell = [_text(end_frame(reason))] if reason else []
        with contextlib.suppress(OSError):
            await finish(reason, receive, send, *farewell, {"type": "websocket.close", "code": GOING_AWAY})

    def _listener(self, receive: Receive) -> Beside:
        async def listen(stream: Stream) -> None:
            try:
                while (message := await receive())["type"] == "websocket.receive":
                    answer = await self._settler.answer(message.get("text"))
                    if answer is not None:
                        await stream.send(_text(answer))
                stream.end(LEFT)
            except OSError:
                stream.end(LEFT)
            except Exception:
                logger.exception("a frame of a WebSocket could not be handled")
                stream.end(BROKEN)

        return listen


async def _identify(connection: Request, token: bytes | None) -> Caller:
    authenticator = connection.app.state.authenticator
    if authenticator.enabled:
        if token is None:
            raise Unauthenticated(
                "this needs an access token of /oauth/token: in the header Authorization, or from a browser as the "
                f"subprotocols '{SUBPROTOCOL}' and the token"
            )
        caller: Caller = await authenticator.authenticate(token)
        return caller
    return ANONYMOUS


def _token(connection: Request) -> bytes | None:
    """Browsers send no header of their own: there it is the subprotocol after `bearer`, or a parameter."""
    if (token := header_token(connection)) is not None:
        return token
    protocols = connection.scope["subprotocols"]
    if SUBPROTOCOL in protocols[:-1]:
        return str(protocols[protocols.index(SUBPROTOCOL) + 1]).encode()
    parameter = connection.query_params.get("access_token")
    return None if parameter is None else parameter.encode(errors="replace")


def _text(frame: str) -> Message:
    return {"type": "websocket.send", "text": frame}
