"""`fastpubsub mcp`: a read-only server of the Model Context Protocol, over standard input and output.

The protocol by hand: lines of JSON-RPC 2.0. Its library would bring a web framework and a dozen packages for that.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpubsub.cli.connection import connected, explained
from fastpubsub.cli.records import single

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.requests import Request

VERSIONS = ("2025-06-18", "2025-03-26", "2024-11-05")
MAX_LINE = 1 << 20
"""Characters of a request."""

PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602
SECRETS = frozenset({"payload", "attributes", "ordering_key", "actual"})
"""What is in messages: only with `--payloads`."""

INSTRUCTIONS = (
    "fastpubsub delivers messages of topics to subscriptions. To find out why a message did not arrive: "
    "explain_message with its id tells its state in each subscription and why; list_subscriptions and get_metrics "
    "show backlogs, list_consumers who consumes, and get_overview what is wrong; browse_subscription shows what is "
    "ahead, leased, waiting or dead. Nothing here changes anything."
)
TEXT, NUMBER = {"type": "string"}, {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}
STATES = {"type": "string", "enum": ["ahead", "leased", "waiting", "dead"], "default": "ahead"}


class RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Tool:
    """Asks one question of the API; `needed` are the arguments that it cannot do without."""

    description: str
    arguments: dict[str, Any]
    needed: tuple[str, ...]
    build: "Callable[..., Request[Any]]"

    def described(self, name: str) -> dict[str, Any]:
        schema = {"type": "object", "properties": self.arguments, "required": list(self.needed)}
        return {
            "name": name,
            "description": self.description,
            "inputSchema": schema | {"additionalProperties": False},
            "annotations": {"readOnlyHint": True, "openWorldHint": False},
        }

    def check(self, given: Any) -> dict[str, Any]:
        if not isinstance(given, dict) or not set(self.needed) <= given.keys() <= self.arguments.keys():
            raise RpcError(
                INVALID_PARAMS, f"needs {', '.join(self.needed) or 'nothing'}; takes {', '.join(self.arguments)}"
            )
        for name, value in given.items():
            kind = str if self.arguments[name]["type"] == "string" else int
            if not isinstance(value, kind) or isinstance(value, bool):
                raise RpcError(INVALID_PARAMS, f"{name} is not of the type {self.arguments[name]['type']}")
        return given


PAGE = {"offset": {"type": "integer", "minimum": 0}, "limit": NUMBER}
TOPIC, SUBSCRIPTION, MESSAGE = {"topic_id": TEXT}, {"subscription_id": TEXT}, {"message_id": TEXT}


def tools(*, searches: bool) -> dict[str, Tool]:
    """By their names. A search tells what is in payloads."""
    place = {"from": TEXT, "limit": NUMBER} | ({"q": TEXT} if searches else {})
    return tools_of_server() | tools_of_topics(place) | tools_of_subscriptions(place) | tools_of_messages()


def tools_of_server() -> dict[str, Tool]:
    from fastpubsub.client import requests

    return {"get_overview": Tool("Sum up the server, and list what needs attention.", {}, (), requests.overview)}


def tools_of_topics(place: dict[str, Any]) -> dict[str, Tool]:
    from fastpubsub.client import requests

    def get(topic_id: str) -> "Request[Any]":
        return requests.get_topic(topic_id)

    def browse(topic_id: str, **given: Any) -> "Request[Any]":
        return requests.browse_topic(topic_id, start_from=given.pop("from", None), **given)

    about = "Read messages of a topic: the newest, or from a position, id or time on."
    return {
        "list_topics": Tool("List topics.", PAGE, (), requests.list_topics),
        "get_topic": Tool("Show a topic.", TOPIC, ("topic_id",), get),
        "browse_topic": Tool(about, TOPIC | place, ("topic_id",), browse),
    }


def tools_of_subscriptions(place: dict[str, Any]) -> dict[str, Tool]:
    from fastpubsub.client import requests

    needed = ("subscription_id",)

    def get(subscription_id: str) -> "Request[Any]":
        return requests.get_subscription(subscription_id)

    def browse(subscription_id: str, state: Any = "ahead", **given: Any) -> "Request[Any]":
        return requests.browse(subscription_id, state, start_from=given.pop("from", None), **given)

    listed = "List subscriptions, of one topic or of all, with their filters."
    shown = "Show a subscription with its filter and settings."
    counted = "Count the messages of a subscription by state."
    consuming = "List the consumers that hold messages of a subscription or wait for some, and since when."
    browsed = "Read messages of a subscription in a state, without taking them."
    return {
        "list_subscriptions": Tool(listed, TOPIC | PAGE, (), requests.list_subscriptions),
        "get_subscription": Tool(shown, SUBSCRIPTION, needed, get),
        "get_metrics": Tool(counted, SUBSCRIPTION, needed, requests.metrics),
        "list_consumers": Tool(consuming, SUBSCRIPTION, needed, requests.list_consumers),
        "browse_subscription": Tool(browsed, SUBSCRIPTION | {"state": STATES} | place, needed, browse),
    }


def tools_of_messages() -> dict[str, Tool]:
    from fastpubsub.client import requests

    def explain(message_id: str, subscription_id: str | None = None) -> "Request[Any]":
        if subscription_id is None:
            return requests.get_message(message_id, limit=100)
        return requests.explain(subscription_id, message_id)

    about = "Explain what happened to a message, in each subscription or in one, and why."
    return {"explain_message": Tool(about, MESSAGE | SUBSCRIPTION, ("message_id",), explain)}


class Server:
    def __init__(self, client: "Client", *, shows_payloads: bool) -> None:
        self._client = client
        self._shows_payloads = shows_payloads
        self._tools = tools(searches=shows_payloads)
        self._methods: dict[str, Callable[[dict[str, Any]], Any]] = {
            "initialize": self._initialize,
            "ping": lambda _params: {},
            "tools/list": lambda _params: {"tools": [one.described(name) for name, one in self._tools.items()]},
            "tools/call": self._call,
        }

    def answer(self, line: str) -> str | None:
        """Returns None for what is not answered: notifications, and empty lines."""
        if not line.strip():
            return None
        id_ = None
        try:
            id_, method, params = _parsed(line)
            if id_ is None:
                return None
            if method not in self._methods:
                raise RpcError(NO_METHOD, f"there is no method {method[:100]!r}")
            answer = {"result": self._methods[method](params)}
        except RpcError as error:
            answer = {"error": {"code": error.code, "message": str(error)}}
        return json.dumps({"jsonrpc": "2.0", "id": id_, **answer})

    def _initialize(self, params: dict[str, Any]) -> dict[str, Any]:
        from fastpubsub import __version__

        asked = params.get("protocolVersion")
        return {
            "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fastpubsub", "version": __version__},
            "instructions": INSTRUCTIONS,
        }

    def _call(self, params: dict[str, Any]) -> dict[str, Any]:
        from fastpubsub.client.errors import BusError

        tool = self._tools.get(str(params.get("name")))
        if tool is None:
            raise RpcError(INVALID_PARAMS, "there is no such tool")
        arguments = tool.check(params.get("arguments") or {})
        try:
            record = self._client.send(single(tool.build(**arguments)))
        except (BusError, ValueError) as error:
            sentence = explained(error) if isinstance(error, BusError) else str(error)
            return {"content": [{"type": "text", "text": sentence}], "isError": True}
        text = record.text.decode() if self._shows_payloads else json.dumps(_without_payloads(json.loads(record.text)))
        return {"content": [{"type": "text", "text": text}], "isError": False}


def _parsed(line: str) -> tuple[Any, str, dict[str, Any]]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise RpcError(PARSE_ERROR, "this is not JSON") from None
    method = request.get("method") if isinstance(request, dict) else None
    params = request.get("params") or {} if isinstance(request, dict) else None
    if not isinstance(method, str) or not isinstance(params, dict):
        raise RpcError(INVALID_REQUEST, "a request is an object with `method` and `params`")
    return request.get("id"), method, params


def _without_payloads(value: Any) -> Any:
    if isinstance(value, dict):
        shown = {name: _without_payloads(one) for name, one in value.items() if name not in SECRETS}
        if "state" in value and "detail" in value:
            # The sentence ends with what a field of the payload has.
            shown["detail"] = value["detail"].partition("; it is ")[0]
        return shown
    return [_without_payloads(one) for one in value] if isinstance(value, list) else value


def mcp(
    payloads: Annotated[
        bool, typer.Option("--payloads", help="Show payloads and attributes, where the scope messages:read allows it.")
    ] = False,
) -> None:
    """Answer questions of an AI agent about topics and messages (MCP, over standard input and output). Read-only."""
    with connected() as client:
        server = Server(client, shows_payloads=payloads)
        while line := sys.stdin.readline(MAX_LINE):
            if (answer := server.answer(line)) is not None:
                print(answer, flush=True)
