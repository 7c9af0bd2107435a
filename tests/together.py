"""Many cases in one test."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

Test = Callable[..., Awaitable[None]]


def together(names: str, cases: Iterable[Any]) -> Callable[[Test], Test]:
    """As `pytest.mark.parametrize`, in one test, for cases that leave nothing behind.

    An application and a database for each of hundreds would take longer than what is tested. All cases run, and the
    test fails with all errors, each of which says its case.
    """
    given = [name.strip() for name in names.split(",")]
    values = [dict(zip(given, case if len(given) > 1 else [case], strict=True)) for case in cases]
    assert values

    def decorate(test: Test) -> Test:
        async def run(**fixtures: Any) -> None:
            errors = [error for case in values if (error := await error_of(test, fixtures, case)) is not None]
            if errors:
                raise ExceptionGroup(f"of {len(values)} cases {len(errors)} failed", errors)

        parameters = inspect.signature(test).parameters
        assert set(given) <= parameters.keys(), given
        left = [one for name, one in parameters.items() if name not in given]
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(run, name, getattr(test, name))
        run.__signature__ = inspect.Signature(left)  # type: ignore[attr-defined]
        return run

    return decorate


async def error_of(test: Test, fixtures: dict[str, Any], case: dict[str, Any]) -> Exception | None:
    try:
        await test(**fixtures, **case)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other cases run too
        error.add_note(f"the case: {case!r:.1000}")
        return error
    return None
