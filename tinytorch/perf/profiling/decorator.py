"""The decorator that profiles a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from tinytorch.perf.profiling.profiler import Profiler

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Profiled(Protocol[P, R_co]):
    """A function that has the profiler of its calls as an attribute."""

    profiler: Profiler

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function."""
        ...


@overload
def profile(function: Callable[P, R_co]) -> Profiled[P, R_co]: ...
@overload
def profile(
    function: None = None, *, profiler: Profiler | None = None
) -> Callable[[Callable[P, R_co]], Profiled[P, R_co]]: ...
def profile(
    function: Callable[P, R_co] | None = None, *, profiler: Profiler | None = None
) -> Profiled[P, R_co] | Callable[[Callable[P, R_co]], Profiled[P, R_co]]:
    """Record all calls of a function: `@profile`, or `@profile(profiler=p)`.

    What was recorded is in the `profiler` of the function: `f.profiler.print_top_operations()`. Nothing is
    printed by itself, and the function returns and raises what it did. Of an `async def` all is recorded
    that runs until it returns.

    Args:
        function: the function; none in the second form.
        profiler: records the calls, a new one unless given. Several functions may share it.

    Raises:
        ValueError: `function` cannot be called, or is a generator, whose code runs after the call.
    """
    if function is None:
        return lambda given: profile(given) if profiler is None else _profiled(given, profiler)
    return _profiled(function, Profiler() if profiler is None else profiler)


def _profiled(function: Callable[P, R_co], profiler: Profiler) -> Profiled[P, R_co]:
    if not callable(function):
        raise ValueError(f"`function` must be something to call, got {function!r}")
    if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
        raise ValueError(
            f"`function` must not be a generator, whose code runs after the call, got {function!r}: write "
            "`with profiler` inside of it, or around the loop that it feeds"
        )
    found = cast("Profiled[P, R_co]", (_awaiting if _is_async(function) else _calling)(function, profiler))
    found.profiler = profiler
    return found


def _calling(function: Callable[P, R_co], profiler: Profiler) -> Callable[P, R_co]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R_co:
        with profiler:
            return function(*args, **kwargs)

    return run


def _awaiting(function: Callable[P, Any], profiler: Profiler) -> Callable[P, Any]:
    @functools.wraps(function)
    async def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        with profiler:
            return await function(*args, **kwargs)

    return run


def _is_async(function: Any) -> bool:
    return _is(inspect.iscoroutinefunction, function)


def _is(kind: Callable[[Any], bool], function: Any) -> bool:
    """Return whether a function, or the call of an object, is of a kind."""
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 - an object may have one
