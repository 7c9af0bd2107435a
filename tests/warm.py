"""Processes of `fastpubsub` that begin with everything imported: forks of one that waits for orders.

A new interpreter spends nearly all of a server's start on imports, and hundreds of tests start one. Nothing of ours
happens on import, so a fork does the rest as a new process does. What is asked of the installed command itself is asked
of `harness.COMMAND`. `commands` are for shells.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, cast

MODULES = (
    "alembic.command",
    "certifi",
    "encodings.idna",
    "fastpubsub.api.app",
    "fastpubsub.api.processes",
    "fastpubsub.cli.forwarding",
    "fastpubsub.cli.publishing",
    "fastpubsub.cli.pulling",
    "fastpubsub.cli.tailing",
    "fastpubsub.client",
    "fastpubsub.client.runner",
    "fastpubsub.database.migrations",
    "fastpubsub.doctor.report",
    "fastpubsub.main",
    "httpcore",
    "rich.progress",
    "rich.syntax",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.ext.asyncio",
    "typer._adapters",
    "websockets",
)
NUMBER_BYTES = 8


class Process:
    """As much of subprocess.Popen as tests use."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
        command: str = "fastpubsub",
    ) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        with ExitStack() as stack:
            if stdin == subprocess.PIPE:
                stdin, writing = os.pipe()
                stack.callback(os.close, stdin)
                self.stdin = os.fdopen(writing, "wb")
            null = stack.enter_context(Path(os.devnull).open("r+b"))
            order = stack.enter_context(tempfile.TemporaryFile("w+"))
            wanted = {"command": command, "arguments": self.args, "folder": str(cwd), "environment": dict(env)}
            json.dump(wanted, order)
            order.flush()
            self._news, told = socket.socketpair()
            stack.enter_context(told)
            files = [order, told, *(null if one == subprocess.DEVNULL else one for one in (stdin, stdout, stderr))]
            _parent.order([one if isinstance(one, int) else one.fileno() for one in files])
        self.pid = self._hear()

    def _hear(self) -> int:
        heard = self._news.recv(NUMBER_BYTES, socket.MSG_WAITALL)
        if not heard:
            raise RuntimeError("the process that forks is gone")
        return int.from_bytes(heard, signed=True)

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._news], [], [], timeout)[0]:
            self.returncode = self._hear()
            self._news.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], given: str = "", timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile("w+") as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(given)
        stdin.seek(0)
        process = Process(arguments, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        for file in (stdout, stderr):
            file.seek(0)
        return subprocess.CompletedProcess(process.args, code, stdout.read().decode(), stderr.read().decode())


class Parent:
    """Of them all; started for the first, and gone when this process is. It may be `shared` with other processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._shared: str | None = None

    def order(self, descriptors: Sequence[int]) -> None:
        orders = self.orders()
        with self._lock:
            socket.send_fds(orders, [b"+"], descriptors)

    def orders(self) -> socket.socket:
        """Where they are sent, for those who inherit it."""
        with self._lock:
            if self._orders is None:
                self._orders = self._start()
            return self._orders

    def share(self, folder: Path) -> str:
        """Where the processes of others reach it; it is started for the first of them."""
        path = folder / "warm"
        if self._listener is None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
            threading.Thread(target=self._start_when_asked, args=(self._listener,), daemon=True).start()
        return str(path)

    def join(self, path: str) -> None:
        """Orders go to the one that another process shares there."""
        self._shared = path

    def _start_when_asked(self, listener: socket.socket) -> None:
        select.select([listener], [], [])
        self.orders()

    def _start(self) -> socket.socket:
        if self._shared is not None:
            shared = socket.socket(socket.AF_UNIX)
            shared.connect(self._shared)
            return shared
        ours, its = socket.socketpair()
        given = [one.fileno() for one in (its, self._listener) if one is not None]
        with its:
            command = [sys.executable, __file__, *map(str, given)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=given)
        return ours

    def stop(self) -> None:
        if self._orders is not None:
            self._orders.close()
        if self._process is not None:
            self._process.wait()
        if self._listener is not None:
            self._listener.close()


_parent = Parent()
share, join, stop = _parent.share, _parent.join, _parent.stop

COMMANDS = ("fastpubsub", "python")


def commands(folder: Path) -> list[int]:
    """Puts `fastpubsub` and `python` there, which are processes of here; whoever runs them inherits the descriptors."""
    orders = _parent.orders().fileno()
    for name in COMMANDS:
        start = shlex.join([sys.executable, "-IS", str(Path(__file__).with_name("ordering.py")), str(orders), name])
        (folder / name).write_text(f'#!/bin/sh\nexec {start} "$@"\n')
        (folder / name).chmod(0o755)
    return [orders]


class Children:
    """Those that run: tells whoever ordered one how it ended, and ends it when nobody wants to know any more."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def add(self, pid: int, told: socket.socket) -> None:
        ended = os.pidfd_open(pid)
        self.selector.register(ended, selectors.EVENT_READ, functools.partial(self._ended, pid, ended, told))
        self.selector.register(told, selectors.EVENT_READ, functools.partial(self._unwanted, pid, told))
        tell(told, pid)

    def accept(self, listener: socket.socket) -> None:
        self.selector.register(listener.accept()[0], selectors.EVENT_READ)

    def forget(self) -> None:
        """In a child, which is none of its own."""
        for key in self.selector.get_map().values():
            os.close(key.fileobj) if isinstance(key.fileobj, int) else cast(socket.socket, key.fileobj).close()
        self.selector.close()

    def end(self) -> None:
        for key in [*self.selector.get_map().values()]:
            if isinstance(key.data, functools.partial) and key.data.func == self._unwanted:
                key.data()

    def _ended(self, pid: int, ended: int, told: socket.socket) -> None:
        self.selector.unregister(ended)
        os.close(ended)
        if told.fileno() in self.selector.get_map():
            self.selector.unregister(told)
        # Waiting for it makes the time that it took count as ours.
        tell(told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        told.close()

    def _unwanted(self, pid: int, told: socket.socket) -> None:
        self.selector.unregister(told)
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group yet
            os.kill(pid, signal.SIGKILL)


def tell(told: socket.socket, number: int) -> None:
    with suppress(OSError):  # nobody may want to know any more
        told.sendall(number.to_bytes(NUMBER_BYTES, signed=True))


def serve(orders: socket.socket, listener: socket.socket | None = None) -> None:
    """Returns in each child, which is as it was ordered by then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As from a terminal, whoever runs the tests: after nohup a server would go on.
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    for name in MODULES:
        importlib.import_module(name)
    decide_late()
    hash_cheaply()
    make_commands()
    gc.collect()
    gc.freeze()
    children = Children()
    children.selector.register(orders, selectors.EVENT_READ)
    if listener is not None:
        children.selector.register(listener, selectors.EVENT_READ, functools.partial(children.accept, listener))
    while True:
        for key, _ in children.selector.select():
            if key.data is not None:
                key.data()
            elif begin(cast(socket.socket, key.fileobj), children, is_last=key.fileobj is orders):
                return


def begin(orders: socket.socket, children: Children, *, is_last: bool) -> bool:
    """Whether this is the child. `is_last`: nobody is left when these orders end."""
    _, descriptors, *_ = socket.recv_fds(orders, 1, 5)
    if not descriptors:
        if is_last:
            children.end()
            sys.exit()
        children.selector.unregister(orders)
        orders.close()
        return False
    order, told, *streams = descriptors
    if (pid := os.fork()) == 0:
        os.setsid()
        children.forget()
        os.close(told)
        obey(order, streams)
        return True
    for one in (order, *streams):
        os.close(one)
    children.add(pid, socket.socket(fileno=told))
    return False


def make_commands() -> None:
    """Typer makes all of them each time, which takes longer than most of them."""
    from fastpubsub.main import app

    typer_main: Any = importlib.import_module("typer.main")
    typer_main.get_command = functools.cache(typer_main.get_command)
    typer_main.get_command(app)


def hash_cheaply() -> tuple[int, int]:
    """Secrets of clients, of which tests make hundreds; tests/services/test_tokens.py has the cost that it returns."""
    from fastpubsub.services import hashing

    cost = hashing.TIME_COST, hashing.MEMORY_COST
    hashing.TIME_COST, hashing.MEMORY_COST = 1, 8
    return cost


def decide_late() -> None:
    """prometheus_client decides when it is imported whether processes share its values: here, with the first value."""
    from prometheus_client import values

    decided = functools.cache(values.get_value_class)

    def make(*arguments: Any, **named: Any) -> Any:
        return decided()(*arguments, **named)

    values.ValueClass = make


def obey(order: int, streams: Sequence[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with os.fdopen(order) as file:
        file.seek(0)
        wanted = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    command = Path(sys.executable).with_name(wanted["command"])
    sys.argv[:] = [str(command), *wanted["arguments"]]
    sys.path[0] = str(command.parent)


def run_command() -> None:
    from fastpubsub.main import main

    main()


def run_python() -> None:
    """`python -m module …`, `python file …`, or `python -`."""
    sys.argv.pop(0)
    sys.path[0] = ""
    if sys.argv[0] == "-m":
        sys.argv.pop(0)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif sys.argv[0] == "-":
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(sys.stdin.read(), "<stdin>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.path[0] = str(Path(sys.argv[0]).parent.absolute())
        runpy.run_path(sys.argv[0], run_name="__main__")


def run_to_the_end(program: Callable[[], None]) -> None:
    try:
        program()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            leave(end.code or 0)
        raise
    leave(0)


def leave(code: int) -> None:
    """As the interpreter does, except that it would take apart all that is imported, which lasts longer than a command.

    Returns where output cannot be written any more, of which the interpreter makes a code of its own.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # which complains about tasks that were forgotten
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(*(socket.socket(fileno=int(one)) for one in sys.argv[1:]))
    run_to_the_end(run_python if Path(sys.argv[0]).name == "python" else run_command)
