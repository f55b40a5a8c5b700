"""What a callable takes, read off its signature: a flag that says whether it trains, a key, a constructor's `rngs`."""

import functools
import inspect
from collections.abc import Callable, Iterable

# Names of the flag, and whether it is True while training.
FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False,
         "inference": False}  # fmt: skip


def called_by(function: Callable) -> str:
    """The name of a function, in messages."""
    return getattr(function, "__qualname__", type(function).__name__)


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    """{name: parameter} of a call, without those that a `functools.partial` has bound; {} where nothing is known."""
    if isinstance(function, functools.partial):
        names = parameters(function.func)
        bound = list(names)[: len(function.args)]
        return {k: p for k, p in names.items() if k not in bound and k not in function.keywords}
    target = function.__init__ if inspect.isclass(function) else function
    try:
        found = dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return {}
    if inspect.isclass(function) and found:
        found.pop(next(iter(found)))
    return found


def flags_of(names: Iterable[str]) -> tuple[str, ...]:
    """The flags among some names."""
    names = set(names)
    return tuple(n for n in FLAGS if n in names)


def flag_values(flags: tuple[str, ...], train: bool) -> dict[str, bool]:
    """What each flag is while training, or not."""
    return {name: FLAGS[name] == train for name in flags}


def read_call(call: Callable, what: str, first: int = 1, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The flags of a call, which takes `first` arguments in front and may take those in `also`.

    Raises:
      ValueError: if it needs any other.
    """
    found = parameters(call)
    needed = [
        n for i, (n, p) in enumerate(found.items())
        if i >= first and p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and n not in FLAGS and n not in also
    ]  # fmt: skip
    if needed:
        raise ValueError(
            f"from_module: {what} takes {', '.join(found)}, and only x would be given ({needed[0]!r} has no default); "
            "wrap it in a module that takes x alone"
        )
    return flags_of(found)
