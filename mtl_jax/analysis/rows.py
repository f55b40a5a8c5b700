"""The rows of a comparison: what each trains, by text or as an object, and names that tell them apart."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtl_jax import balancing, parts, sharing
from mtl_jax.balancing import Balancer
from mtl_jax.encoders import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.tasks import Task
from mtl_jax.training.contents import contents, name_of
from mtl_jax.training.objects import text_of

METHODS = 'several, such as ("upgrad", mtl.balancing.cagrad(c=0.4)), or {name: (sharing, method)}'
SHARING = 'an architecture\'s text, such as "mmoe", a function (encoder, tasks) -> model, or a model'


class Row(NamedTuple):
    """What a row trains.

    Attributes:
      sharing: text; or a function (encoder, tasks) -> model, or a model.
      balancer: text, or a method.
    """

    sharing: Any
    balancer: Any

    def method(self) -> Balancer:
        """The balancing method."""
        return balancing.build(self.balancer) if isinstance(self.balancer, str) else self.balancer

    def model(self, encoder: Encoder, tasks: tuple[Task, ...]) -> MultiTaskModel:
        """The model over an encoder and tasks.

        Raises:
          ValueError: if a function makes no model, or the model is of other tasks.
        """
        if isinstance(self.sharing, str):
            return sharing.build(self.sharing, encoder, tasks)
        if isinstance(self.sharing, MultiTaskModel):
            given, wanted = ([t.name for t in x] for x in (self.sharing.tasks, tasks))
            if sorted(given) != sorted(wanted):
                raise ValueError(f"methods: a model of tasks {', '.join(given)} was given for data with "
                                 f"{', '.join(wanted)}")  # fmt: skip
            return self.sharing
        found = self.sharing(encoder, tasks)
        if not isinstance(found, MultiTaskModel):
            raise parts.no_such(f"methods: what {name_of(self.sharing)} makes", found, "a model of mtl.sharing")
        return found

    def texts(self) -> dict[str, str | None]:
        """{"sharing": text, "balancer": text}; None for objects that no text describes."""
        # A model's encoder is its own, which its text does not name.
        architecture = self.sharing if isinstance(self.sharing, str) else None
        method = self.balancer if isinstance(self.balancer, str) else text_of(self.balancer, balancing.build)
        return {"sharing": architecture, "balancer": method}

    def objects(self) -> dict[str, Any]:
        """Those that no text describes."""
        return {k: getattr(self, k) for k, text in self.texts().items() if text is None}


def read_rows(methods: Any) -> dict[str, Row]:
    """{name: row} of the methods that a comparison was given.

    Raises:
      ValueError: for anything else, or two methods of one name that differ in what no value tells.
    """
    if isinstance(methods, str | Balancer) or not hasattr(methods, "__iter__"):
        raise parts.no_such("methods", methods, METHODS)
    if isinstance(methods, Mapping):
        return {_checked_name(name): _row(name, given) for name, given in methods.items()}
    return named_apart([_row(i, given) for i, given in enumerate(methods)])


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise parts.no_such("methods: a name", name, "text")
    return name


def _row(name: Any, given: Any) -> Row:
    """A row of a method, or of (sharing, method)."""
    pair = isinstance(given, tuple | list) and len(given) == 2 and not hasattr(given, "spec")
    architecture, method = given if pair else ("hard", given)
    if isinstance(name, str) and isinstance(given, str):  # which of the two it names would be a guess
        raise ValueError(f"methods: {name!r} is the text {given!r}; it must be {{name: (sharing, balancer)}}, such as "
                         f"{{{name!r}: ('hard', {given!r})}}")  # fmt: skip
    if not isinstance(method, str | Balancer):
        raise parts.no_such(f"methods: {name!r}", method, 'a method such as mtl.balancing.upgrad() or "upgrad", or '
                            "(sharing, method)")  # fmt: skip
    if not (isinstance(architecture, str | MultiTaskModel) or callable(architecture)):
        raise parts.no_such(f"methods: sharing of {name!r}", architecture, SHARING)
    return Row(architecture, method)


def plain_name(method: str | Balancer) -> str:
    """A method's text as a row is called; without one, the function that made it."""
    if isinstance(method, str):
        return method
    text = text_of(method, balancing.build)
    if text is not None:
        return text.removesuffix("()")
    return getattr(method.update, "__qualname__", "method").split(".<locals>")[0].rpartition(".")[2]


def named_apart(rows: Sequence[Row]) -> dict[str, Row]:
    """{name: row}; methods of one name that hold other things have what sets them apart behind it.

    Raises:
      ValueError: where that is no plain value.
    """
    found: dict[str, list[tuple[Row, dict[str, Any]]]] = {}
    for row in rows:
        held = contents(row.method()._replace(spec=None))
        same = found.setdefault(plain_name(row.balancer), [])
        if all(held != other for _, other in same):
            same.append((row, held))
    named: dict[str, Row] = {}
    for name, same in found.items():
        for row, held in same:
            called = name if len(same) == 1 else f"{name} ({told_apart(held, [h for _, h in same])})"
            if called in named or called.endswith(" ()"):
                raise ValueError(
                    f"methods: {len(same)} are called {name!r} and differ in what has no name, such as their code; "
                    f"name them: {{name: method}}"
                )
            named[called] = row
    return named


def told_apart(held: Mapping[str, Any], every: Sequence[Mapping[str, Any]]) -> str:
    """The plain values in which contents differ from others, as ``rate=0.1, c=2``."""
    said: dict[str, Any] = {}
    for place, value in held.items():
        field = next((n for n in reversed(place.split(".")) if not n.isdigit()), "")
        plain = isinstance(value, bool | int | float) or (
            isinstance(value, str) and field != "code" and " " not in value
        )
        # What lies in the method's functions: its fields say the same in other words.
        if "." in place and plain and any(other.get(place) != value for other in every):
            said.setdefault(field, value)
    return ", ".join(f"{k}={v!r}" for k, v in said.items())


def sharing_key(given: Any) -> Any:
    """What architectures of rows that train in one program have in common."""
    return given if isinstance(given, str) else id(given)
