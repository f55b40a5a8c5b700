"""Parts named in call syntax: ``"cagrad(c=0.4)"``, ``"mlp(features=(64, 64))"``.

One grammar serves configs, flags, saved runs and tables. A name is looked up in a registry, arguments are Python
literals, and nothing is ever evaluated.
"""

import ast
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

LISTED = 80  # names that a message lists at most: more than any registry has, fewer than data sets have tasks


def unknown(kind: str, name: str, allowed: Iterable[str]) -> ValueError:
    """The error for a name that is not in a registry: suggests the nearest one and lists all, or says how many."""
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    more = f", ... {len(allowed)} in all" if len(allowed) > LISTED else ""
    shown = allowed[:8] if more else allowed
    return ValueError(f"unknown {kind} {name!r}{hint} ({', '.join(shown)}{more})")


def no_such(kind: str, given: Any, wanted: str) -> ValueError:
    """The error for something of another type than `kind` is: says what was given, and of a function to call it."""
    if inspect.isfunction(given) or inspect.isclass(given):
        return ValueError(f"{kind} is {given.__name__} itself, which was not called; it must be {wanted}")
    shape = getattr(given, "shape", None)
    shown = f"{type(given).__name__} of shape {tuple(shape)}" if isinstance(shape, tuple) else repr(given)
    shown = shown if len(shown) <= 60 else f"a {type(given).__name__}"
    return ValueError(f"{kind} is {shown}; it must be {wanted}")


def check_whole(name: str, given: Any, low: int = 1) -> None:
    """An error for an argument that is no whole number of at least `low`."""
    if isinstance(given, bool) or not hasattr(given, "__index__") or given < low:
        whole = isinstance(given, float) and given.is_integer() and given >= low
        hint = f"; give {int(given)}" if whole else ""
        raise ValueError(f"{name}={given!r} must be a whole number of at least {low}{hint}")


def check_seed(seed: Any) -> None:
    """An error for a seed that is no whole number of 32 bits."""
    check_whole("seed", seed, 0)
    if seed >= 2**32:
        raise ValueError(f"seed={seed} must be below 2**32")


def parse(text: str, kind: str = "part") -> tuple[str, tuple, dict[str, Any]]:
    """Splits ``"name(1, key=(2, 3))"`` into name, positional and keyword arguments.

    Raises:
      ValueError: if `text` is not a name or a call of a name with literal arguments.
    """
    if not isinstance(text, str):
        raise no_such(kind, text, "text of the form name or name(key=value, ...)")
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    wrong = f"{kind} {shown!r} is not of the form name or name(key=value, ...) with literal values"
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, (), {}
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise ValueError(wrong)
        if any(k.arg is None for k in node.keywords):
            raise ValueError(wrong)
        args = tuple(ast.literal_eval(a) for a in node.args)
        return node.func.id, args, {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:  # the last two: too deep
        raise ValueError(wrong) from error


def returning(kind: Any, namespace: Mapping[str, Any]) -> dict[str, Callable]:
    """{name: function} of the functions in a module's namespace that say they return `kind`, by name.

    So whatever a room's ``__init__`` imports is what a text can name there: another one is a file, and that line.
    """
    found = {n: f for n, f in namespace.items() if getattr(f, "__annotations__", {}).get("return") is kind}
    return dict(sorted(found.items()))


def lookup(name: str, registry: Mapping[str, Any], kind: str) -> Any:
    """The entry called `name`, or an error that lists the allowed names."""
    if name not in registry:
        raise unknown(kind, name, registry)
    return registry[name]


def build(text: str, registry: Mapping[str, Callable], kind: str, *args, **extra) -> Any:
    """Calls the registry's function that `text` names, with `args` in front and `extra` as further keywords.

    Raises:
      ValueError: for an unknown name or argument; the message lists the allowed ones.
    """
    name, own, keywords = parse(text, kind)
    function = lookup(name, registry, kind)
    signature = inspect.signature(function)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    settable = [p for i, p in enumerate(signature.parameters) if i >= len(args) and p not in extra]
    for key in keywords:
        if key not in settable and not takes_any:
            raise unknown(f"argument of {kind} {name!r}", key, settable)
    try:
        signature.bind(*args, *own, **keywords, **extra)
    except TypeError as error:
        raise ValueError(f"{kind} {text!r}: {error}; arguments are {signature_text(signature)}") from error
    return function(*args, *own, **keywords, **extra)


def bind(name: str, signature: inspect.Signature, args: tuple, keywords: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments of a call by name; a TypeError for those that do not fit says which there are."""
    try:
        return signature.bind(*args, **keywords)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; arguments are {signature_text(signature)}") from None


def signature_text(signature: inspect.Signature) -> str:
    """Arguments and defaults without annotations, as a message shows them."""
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))


def is_literal(value: Any) -> bool:
    """Whether `value` survives ``ast.literal_eval(repr(value))``."""
    try:
        return ast.literal_eval(repr(value)) == value
    except (SyntaxError, ValueError, TypeError):
        return False


def call(name: str, keywords: Mapping[str, Any]) -> str:
    """The text that `parse` reads back: ``call("cnn", {"features": (8,)}) == "cnn(features=(8,))"``."""
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in keywords.items())})"


def recorded(
    *skip: str,
    objects: Sequence[str] = (),
    paper: str = "",
    when: str = "",
    example: Mapping[str, Any] | None = None,
) -> Callable[[Callable], Callable]:
    """Decorates a constructor so that what it returns carries the call that made it, in its field ``spec``.

    A call with an argument that is not a literal, such as a Python function, is recorded as None: it cannot be rebuilt
    from text.

    Args:
      skip: arguments that are not part of the text (an encoder, the tasks).
      objects: arguments that take a part by its text or as an object, which is written as its own text.
      paper, when: whose idea it is, and when it is worth its cost, in a line each, for tables and readers; they and
        `example` are attributes of the constructor.
      example: the arguments that a call cannot do without, with values that will do.
    """

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def constructor(*args, **kwargs):
            bound = bind(function.__name__, signature, args, kwargs)
            given = {}
            for key, value in bound.arguments.items():
                if key in skip or signature.parameters[key].default is value:
                    continue
                kind = signature.parameters[key].kind
                if kind is inspect.Parameter.VAR_KEYWORD:
                    given.update(value)
                else:
                    given[key] = tuple(value) if isinstance(value, list) else value
                    given[key] = as_text(given[key]) if key in objects else given[key]
            spec = call(function.__name__, given) if all(map(is_literal, given.values())) else None
            try:
                return function(*args, **kwargs)._replace(spec=spec)
            except TypeError as error:  # an argument of another type than the function reckons with
                raise ValueError(f"{call(function.__name__, given)}: {error}") from error

        vars(constructor).update(paper=paper, when=when, example=dict(example or {}))
        return constructor

    return decorate


def as_text(value: Any) -> Any:
    """Parts, alone or within tuples, as the texts that made them; one that no text describes stays what it is."""
    if isinstance(value, tuple) and hasattr(value, "spec"):
        return value if value.spec is None else value.spec
    return tuple(map(as_text, value)) if isinstance(value, tuple | list) else value


def example_of(constructor: Callable) -> Any:
    """What a constructor makes with the arguments that it cannot do without."""
    return constructor(**getattr(constructor, "example", {}))
