"""Reads from a handler's signature whether it takes a payload, the message, or both, or lists of them."""

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from fastpubsub.models import Message

EMPTY = inspect.Parameter.empty
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Dependency:
    """The mark of an argument; FastAPI's has these members, too."""

    dependency: Callable[..., Any] | None = None
    use_cache: bool = True


@dataclass(frozen=True, slots=True)
class Injected:
    """An argument that is marked: it is neither the payload nor the message."""

    name: str
    annotation: Any
    mark: Any

    @property
    def call(self) -> Callable[..., Any]:
        call: Callable[..., Any] = bare(self.annotation) if self.mark.dependency is None else self.mark.dependency
        return call


def mark_of(annotation: Any, default: Any) -> Any:
    """Ours, or that of FastAPI; None without."""
    inside = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    marks = (one for one in (default, *inside) if hasattr(one, "dependency") and hasattr(one, "use_cache"))
    return next(marks, None)


class Argument(NamedTuple):
    name: str
    annotation: Any
    """Of a list, that of its items."""
    default: Any
    by_keyword: bool
    is_message: bool
    is_list: bool

    @property
    def is_taken(self) -> bool:
        """A message is passed for every argument that asks for it, a payload only without a default."""
        return self.is_message or self.default is EMPTY


class Signature:
    """Says which argument is the message and which the payload; raises `TypeError` when that is unclear."""

    def __init__(self, name: str, function: Callable[..., Any], *, may_take_nothing: bool = False) -> None:
        self._name = name
        self.injected: list[Injected] = []
        arguments = list(self._read(function))
        if self.injected:  # which come by keyword, and may stand before the others
            arguments = [one._replace(by_keyword=True) for one in arguments]
        self._by_position = _up_to_last_taken([one for one in arguments if not one.by_keyword])
        self._by_keyword = [one for one in arguments if one.by_keyword and one.is_taken]
        taken = [one for one in arguments if one.is_taken]
        payloads = [one for one in taken if not one.is_message]
        is_missing = not taken and not may_take_nothing
        if is_missing or len(payloads) > 1 or len(taken) - len(payloads) > 1:
            raise TypeError(
                f"{name} takes a payload, a message, or both: annotate the payload with a Pydantic model or dict, "
                "and the message with fastpubsub.client.Message; a decorator needs functools.wraps"
            )
        self.payload = payloads[0] if payloads else None
        self.takes_message = len(taken) > len(payloads)
        self.message_type = next((bare(one.annotation) for one in taken if one.is_message), None)
        self.is_batch = bool(taken) and taken[0].is_list
        if any(one.is_list != self.is_batch for one in taken):
            raise TypeError(f"{name} takes a list of payloads with a list of messages, or one with one")

    def bind(self, payload: Any, message: Any) -> tuple[list[Any], dict[str, Any]]:
        def value(one: Argument) -> Any:
            if one.is_message:
                return message
            return payload if one is self.payload else one.default

        return [value(one) for one in self._by_position], {one.name: value(one) for one in self._by_keyword}

    def _read(self, function: Callable[..., Any]) -> Iterator[Argument]:
        try:
            parameters = inspect.signature(function).parameters.values()
            hints = get_type_hints(annotated(function), include_extras=True)
        except (NameError, AttributeError, SyntaxError) as error:
            raise TypeError(f"{self._name}: {error}; its annotations must be names of its module") from None
        except ValueError as error:
            raise TypeError(f"{self._name}: {error}") from None
        for parameter in parameters:
            annotation = EMPTY if parameter.annotation is EMPTY else hints.get(parameter.name, parameter.annotation)
            if (mark := mark_of(annotation, parameter.default)) is not None:
                self.injected.append(Injected(parameter.name, annotation, mark))
                continue
            item = item_of(annotation)
            annotation = annotation if item is None else item
            takes_message = is_message(annotation)
            if (not takes_message or parameter.kind in VARIABLE) and _mentions_message(annotation):
                raise TypeError(
                    f"{self._name}: a handler gets a message or a list of them, so {parameter.name!r} cannot be "
                    f"{annotation}: annotate it with fastpubsub.client.Message or list[Message]"
                )
            if parameter.kind not in VARIABLE:
                by_keyword = parameter.kind is KEYWORD_ONLY
                yield Argument(
                    parameter.name, annotation, parameter.default, by_keyword, takes_message, item is not None
                )


def _up_to_last_taken(arguments: list[Argument]) -> list[Argument]:
    """Passes the defaults of the arguments before it."""
    count = max((place for place, one in enumerate(arguments, 1) if one.is_taken), default=0)
    return arguments[:count]


def annotated(function: Any) -> Any:
    """Returns the object with the annotations of a function, a partial, or a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if inspect.isroutine(function) else type(function).__call__


def item_of(annotation: Any) -> Any:
    """Returns what a list has, as it is annotated; None for what is no list."""
    annotation = bare(annotation)
    if annotation is not list and get_origin(annotation) is not list:
        return None
    return next(iter(get_args(annotation)), Any)


def is_message(annotation: Any) -> bool:
    annotation = bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        some = [one for one in get_args(annotation) if one is not types.NoneType]
        return all(is_message(one) for one in some)
    return inspect.isclass(annotation) and issubclass(annotation, Message)


def _mentions_message(annotation: Any) -> bool:
    annotation = bare(annotation)
    if inspect.isclass(annotation) and not get_args(annotation):
        return issubclass(annotation, Message)
    return any(_mentions_message(one) for one in get_args(annotation))


def bare(annotation: Any) -> Any:
    """Returns the type inside `Annotated`, `NewType`, a type alias or a bound type variable."""
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if isinstance(annotation, TypeVar):
        return annotation.__bound__
    inner = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
    return annotation if inner is None else bare(inner)
