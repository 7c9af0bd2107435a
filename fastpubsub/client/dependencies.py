"""What a handler gets besides the message: `session: Annotated[Session, Depends(get_session)]`, as in FastAPI."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, get_type_hints

from fastpubsub.client.signatures import EMPTY, VARIABLE, Dependency, Injected, annotated, is_message, item_of, mark_of
from fastpubsub.models import Message


def Depends(dependency: Callable[..., Any] | None = None, *, use_cache: bool = True) -> Any:  # noqa: N802 - as FastAPI's
    """Marks an argument of a handler or of a dependency: it gets what `dependency` returns or yields.

    `dependency` is a function, asynchronous or not, or a class; without it, the class that the argument is annotated
    with. It is called once for each delivery, `use_cache=False` for each argument. The code after a `yield` runs when
    the handler has ended and before the message is settled: an error there lets the message come again.
    """
    return Dependency(dependency, use_cache)


Solve: TypeAlias = Callable[[Any, AsyncExitStack], Awaitable[dict[str, Any]]]
"""Returns the values by the names of the arguments; what is to be closed goes onto the stack."""

Solver: TypeAlias = Callable[[str, Sequence[Injected], bool], Solve]
"""Prepares the arguments of a handler, which has a name, and takes batches or one message.

Raises `TypeError` for a dependency that cannot be called.
"""


@dataclass(frozen=True, slots=True)
class Node:
    """A dependency with its own."""

    call: Callable[..., Any]
    use_cache: bool
    children: Mapping[str, "Node"]
    messages: Sequence[str]
    """Arguments that are the message."""


def solve_plainly(name: str, injected: Sequence[Injected], is_batch: bool) -> Solve:
    """The solver of a worker outside of FastAPI."""
    nodes = {one.name: _node(one, (name,), is_batch=is_batch) for one in injected}

    async def solve(message: Any, stack: AsyncExitStack) -> dict[str, Any]:
        solving = _Solving(message, stack)
        return {name: await solving.value(node) for name, node in nodes.items()}

    return solve


def _node(injected: Injected, path: tuple[Any, ...], *, is_batch: bool) -> Node:
    call = injected.call
    if call in path:
        raise TypeError(f"{path[0]}: the dependency {_name(call)} depends on itself")
    children, messages = {}, []
    for parameter in _parameters(call, path[0]):
        mark = mark_of(parameter.annotation, parameter.default)
        if mark is not None:
            child = Injected(parameter.name, parameter.annotation, mark)
            children[parameter.name] = _node(child, (*path, call), is_batch=is_batch)
        elif is_message(item_of(parameter.annotation) if is_batch else parameter.annotation):
            messages.append(parameter.name)
        elif parameter.default is EMPTY and parameter.kind not in VARIABLE:
            raise TypeError(
                f"{path[0]}: nobody gives the dependency {_name(call)} its argument {parameter.name!r}: "
                f"mark it with Depends, annotate it with {'list[Message]' if is_batch else 'fastpubsub.client.Message'}"
                ", or give it a default"
            )
    return Node(call, injected.mark.use_cache, children, messages)


def _parameters(call: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(call).parameters.values()
        hints = get_type_hints(call.__init__ if inspect.isclass(call) else annotated(call), include_extras=True)
    except (NameError, AttributeError, SyntaxError, ValueError, TypeError) as error:
        raise TypeError(f"{name}: the dependency {_name(call)} cannot be called: {error}") from None
    return [one.replace(annotation=hints.get(one.name, one.annotation)) for one in parameters]


class _Solving:
    """The dependencies of one delivery."""

    def __init__(self, message: Message, stack: AsyncExitStack) -> None:
        self._message = message
        self._stack = stack
        self._cache: dict[Callable[..., Any], Any] = {}

    async def value(self, node: Node) -> Any:
        if node.use_cache and node.call in self._cache:
            return self._cache[node.call]
        values = {name: await self.value(child) for name, child in node.children.items()}
        values |= dict.fromkeys(node.messages, self._message)
        value = await self._call(node.call, values)
        if node.use_cache:
            self._cache[node.call] = value
        return value

    async def _call(self, call: Callable[..., Any], values: dict[str, Any]) -> Any:
        """What is not asynchronous runs in a thread, as in FastAPI."""
        function = call if inspect.isclass(call) else annotated(call)
        if inspect.isasyncgenfunction(function):
            return await self._stack.enter_async_context(asynccontextmanager(call)(**values))
        if inspect.isgeneratorfunction(function):
            return await self._stack.enter_async_context(_in_threads(contextmanager(call)(**values)))
        if inspect.iscoroutinefunction(function):
            return await call(**values)
        return await asyncio.to_thread(call, **values)


@asynccontextmanager
async def _in_threads(manager: AbstractContextManager[Any]) -> AsyncIterator[Any]:
    value = await asyncio.to_thread(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        if not await asyncio.to_thread(manager.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await asyncio.to_thread(manager.__exit__, None, None, None)


def _name(call: Any) -> str:
    return getattr(call, "__qualname__", type(call).__name__)
