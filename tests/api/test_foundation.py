"""What the server relies on in uvicorn and gunicorn without a promise of theirs, and what to do when it is gone.

Each of our classes that extends one of theirs is read: whatever it overrides or uses of its base is listed here.
"""

import ast
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from importlib.metadata import version

import gunicorn.config
import pytest
import uvicorn
from gunicorn.arbiter import Arbiter
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from fastpubsub import api
from fastpubsub.api import processes, server
from fastpubsub.api.http_cycle import Cycle, CycleUntilClose
from fastpubsub.api.http_protocol import BoundedHttpProtocol
from fastpubsub.api.websocket_protocol import BoundedWebSocketProtocol
from tests.conftest import MakeSettings

THEIRS = {"gunicorn", "uvicorn", "uvicorn_worker"}
STOPPING = "stopping must first turn readiness 503: find what is called for SIGTERM, and what then ends the main loop"
SERVING = "find where the sockets of the parent are served, and what says that startup has failed"
BEATING = "find what tells gunicorn that a worker lives: a worker must also notice there that its parent is gone"
BOUNDS = "heads and bodies of requests are bounded here: find what the parser calls, and where the request is kept"
ORDERS = "the master alone tells its workers to stop: find what passes a signal on, and what waits for the workers"
LEAVING = "a request is told that its client has left, and cut when the server waits no longer: find what says so"
LINGERING = "who is still sending reads the refusal: find where the connection is closed after an answer"
FRAMES = "an answer to HTTP/1.0 ends with its connection: find what chooses between a length and chunks"
SOCKETS = "a WebSocket whose client takes nothing is not read from: find where reading pauses and frames are handled"
OPTIONS = "find how gunicorn takes options and an application from a program instead of a command line"

RELIED_UPON: dict[type, dict[str, str]] = {
    server.GracefulServer: {
        "capture_signals": STOPPING,
        "config": STOPPING,
        "handle_exit": STOPPING,
        "serve": SERVING,
        "should_exit": STOPPING,
        "startup": SERVING,
    },
    processes.GunicornWorker: {
        "_serve": SERVING,
        "app": OPTIONS,
        "callback_notify": BEATING,
        "cfg": OPTIONS,
        "config": SERVING,
        "init_signals": ORDERS,
        "ppid": BEATING,
        "sockets": SERVING,
        "wsgi": SERVING,
    },
    processes.Master: {
        "LISTENERS": ORDERS,
        "WORKERS": ORDERS,
        "cfg": ORDERS,
        "handle_int": ORDERS,
        "handle_quit": ORDERS,
        "handle_term": ORDERS,
        "kill_worker": ORDERS,
        "kill_workers": ORDERS,
        "log": ORDERS,
        "reap_workers": ORDERS,
        "signal": ORDERS,
        "stop": ORDERS,
    },
    processes.GunicornApplication: {"cfg": OPTIONS, "load": OPTIONS, "load_config": OPTIONS, "run": OPTIONS},
    BoundedHttpProtocol: {
        "_should_upgrade": BOUNDS,
        "_start_asgi_task": BOUNDS,
        "_unset_keepalive_if_required": BOUNDS,
        "access_log": BOUNDS,
        "access_logger": BOUNDS,
        "app": BOUNDS,
        "connection_lost": BOUNDS,
        "connection_made": BOUNDS,
        "cycle": BOUNDS,
        "data_received": BOUNDS,
        "eof_received": BOUNDS,
        "expect_100_continue": BOUNDS,
        "flow": BOUNDS,
        "handle_websocket_upgrade": BOUNDS,
        "headers": BOUNDS,
        "logger": BOUNDS,
        "loop": BOUNDS,
        "on_body": BOUNDS,
        "on_header": BOUNDS,
        "on_headers_complete": BOUNDS,
        "on_message_begin": BOUNDS,
        "on_message_complete": BOUNDS,
        "on_response_complete": LINGERING,
        "parser": BOUNDS,
        "pipeline": BOUNDS,
        "root_path": BOUNDS,
        "scope": BOUNDS,
        "server_state": BOUNDS,
        "timeout_keep_alive_task": BOUNDS,
        "transport": BOUNDS,
        "url": BOUNDS,
    },
    Cycle: {
        "body": LEAVING,
        "disconnected": LEAVING,
        "flow": LEAVING,
        "keep_alive": LINGERING,
        "message_event": LEAVING,
        "more_body": LINGERING,
        "on_response": LINGERING,
        "receive": LEAVING,
        "response_complete": LEAVING,
        "run_asgi": LEAVING,
        "scope": LEAVING,
        "send": LINGERING,
        "transport": LEAVING,
        "waiting_for_100_continue": LEAVING,
    },
    CycleUntilClose: {
        "chunked_encoding": FRAMES,
        "expected_content_length": FRAMES,
        "send": FRAMES,
    },
    BoundedWebSocketProtocol: {
        "app": SOCKETS,
        "close_sent": SOCKETS,
        "conn": SOCKETS,
        "data_received": SOCKETS,
        "disconnected": SOCKETS,
        "frames": SOCKETS,
        "handle_cont": SOCKETS,
        "handle_parser_exception": SOCKETS,
        "handshake_complete": SOCKETS,
        "handshake_initiated": SOCKETS,
        "keepalive_timeout": SOCKETS,
        "loop": SOCKETS,
        "pause_writing": SOCKETS,
        "queue": SOCKETS,
        "read_paused": SOCKETS,
        "receive": SOCKETS,
        "resume_writing": SOCKETS,
        "run_asgi": SOCKETS,
        "send": SOCKETS,
        "transport": SOCKETS,
        "writable": SOCKETS,
    },
}
CUTTING = "streams.abort cuts the connection of a client that takes nothing: find the transport behind `receive`"
OTHERS: list[tuple[type, str, str]] = [
    (uvicorn.Server, "started", SERVING),
    (RequestResponseCycle, "response_complete", BOUNDS),
    (RequestResponseCycle, "receive", CUTTING),
    (RequestResponseCycle, "transport", CUTTING),
    (WebSocketsSansIOProtocol, "receive", CUTTING),
    (WebSocketsSansIOProtocol, "transport", CUTTING),
    (Arbiter, "WORKER_BOOT_ERROR", "a worker that cannot start ends the server: find the exit code that says so"),
]
"""Used from elsewhere."""


@functools.cache
def own_names(of: type) -> ast.ClassDef:
    wanted = [node for node in ast.walk(module_of(of)) if isinstance(node, ast.ClassDef) and node.name == of.__name__]
    (found,) = wanted
    return found


@functools.cache
def module_of(of: type) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[of.__module__]))


def used(of: type) -> Iterator[str]:
    """Methods, and whatever of `self` or `super()` is touched."""
    for node in ast.walk(own_names(of)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()"):
            yield node.attr


def given(of: type) -> set[str]:
    """What a class and those below it have: methods, attributes, and what their methods assign to `self`."""
    names = set(dir(of))
    for one in of.__mro__[:-1]:
        for node in ast.walk(own_names(one)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return names


def base(of: type) -> type:
    """The first that is not ours."""
    return next(one for one in of.__mro__ if package(one) != "fastpubsub")


def package(of: type) -> str:
    return of.__module__.partition(".")[0]


@pytest.mark.parametrize("ours", RELIED_UPON)
def test_all_that_is_used_is_listed(ours: type) -> None:
    found = {name for name in used(ours) if name in given(base(ours)) and not name.startswith("__")}
    assert found == RELIED_UPON[ours].keys()


def test_no_class_is_forgotten() -> None:
    modules = [importlib.import_module(f"fastpubsub.api.{one.name}") for one in pkgutil.iter_modules(api.__path__)]
    classes = {one for module in modules for one in vars(module).values() if inspect.isclass(one)}
    ours = {one for one in classes if package(one) == "fastpubsub"}
    assert {one for one in ours if THEIRS & set(map(package, one.__mro__))} == RELIED_UPON.keys()


@pytest.mark.parametrize("theirs", dict.fromkeys([*map(base, RELIED_UPON), *(theirs for theirs, _, _ in OTHERS)]))
def test_it_is_still_there(theirs: type) -> None:
    wanted = {name: advice for one, name, advice in OTHERS if one is theirs}
    for ours, names in RELIED_UPON.items():
        wanted |= names if base(ours) is theirs else {}
    release = f"{package(theirs)} {version(package(theirs))}"
    gone = [f"{release} has no {theirs.__name__}.{name}: {wanted[name]}" for name in wanted.keys() - given(theirs)]
    assert gone == []


@pytest.mark.parametrize("ours", [one for one in RELIED_UPON if one is not processes.GunicornApplication])
def test_what_is_overridden_is_called_as_before(ours: type) -> None:
    for name in RELIED_UPON[ours].keys() & vars(ours).keys():
        here, there = getattr(ours, name), getattr(base(ours), name)
        wanted = list(inspect.signature(there).parameters)
        assert list(inspect.signature(here).parameters) == wanted, f"{name}: {RELIED_UPON[ours][name]}"
        assert inspect.iscoroutinefunction(here) == inspect.iscoroutinefunction(there), name


def test_options_are_known(make_settings: MakeSettings) -> None:
    options = inspect.signature(uvicorn.Config).parameters.keys()
    assert {*server.uvicorn_options(make_settings()), "timeout_notify", "callback_notify", "backlog"} <= options
    assert processes.gunicorn_options(make_settings()).keys() <= gunicorn.config.make_settings().keys()
