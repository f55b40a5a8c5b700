"""Which task reads which: a directed graph without cycles over tasks, given by edges or by an order."""

from collections.abc import Sequence
from typing import NamedTuple

from mtl_jax import parts

Edges = Sequence[Sequence[str]]  # pairs (from, to)


class TaskGraph(NamedTuple):
    """A directed acyclic graph over tasks.

    Attributes:
      order: all tasks, each after those that it reads.
      parents: {task: tasks that it reads}.
      senders: tasks that some other task reads.
    """

    order: tuple[str, ...]
    parents: dict[str, tuple[str, ...]]
    senders: frozenset[str]

    def needed(self, wanted: Sequence[str]) -> frozenset[str]:
        """`wanted`, and all that they read, directly or through others."""
        found = set(wanted)
        for name in reversed(self.order):
            if name in found:
                found.update(self.parents[name])
        return frozenset(found)


def task_graph(names: Sequence[str], edges: Edges | None, order: Sequence[str] | None, sharing: str) -> TaskGraph:
    """The graph of `edges` (from, to), or the one in which each task of `order` reads all those before it.

    Raises:
      ValueError: unless exactly one of the two is given; for an unknown task, a repeated one, or a cycle.
    """
    if (edges is None) == (order is None):
        shown = ", ".join(names)
        raise ValueError(
            f"{sharing}: give either edges=(('from', 'to'), ...) or order=('first', 'second', ...); tasks are {shown}"
        )
    if order is not None:
        for name in order:
            if list(order).count(name) > 1:
                raise ValueError(f"{sharing}: order names task {name!r} twice")
        _check_known(order, names, sharing)
        edges = [(a, b) for j, b in enumerate(order) for a in order[:j]]
    assert edges is not None  # one of the two is given
    for edge in edges:
        if isinstance(edge, str) or len(edge) != 2:
            raise ValueError(f"{sharing}: edge {edge!r} must be a pair of task names, (from, to)")
        _check_known(edge, names, sharing)
    edges = list(dict.fromkeys(map(tuple, edges)))
    # Sorted, so that the order of the tasks or of the edges changes no sum.
    parents = {n: tuple(sorted(a for a, b in edges if b == n)) for n in names}
    done: list[str] = []
    while len(done) < len(names):
        ready = [n for n in names if n not in done and set(parents[n]) <= set(done)]
        if not ready:
            raise ValueError(
                f"{sharing}: the edges form a cycle, {' -> '.join(_cycle(parents, done))}; drop one of them"
            )
        done += ready
    return TaskGraph(tuple(done), parents, frozenset(a for a, _ in edges))


def _check_known(given: Sequence[str], names: Sequence[str], sharing: str) -> None:
    for name in given:
        if name not in names:
            raise parts.unknown(f"task in {sharing}", name, names)


def _cycle(parents: dict[str, tuple[str, ...]], done: Sequence[str]) -> list[str]:
    """A cycle among the tasks that are not `done`, in the direction of its edges, its first task also at its end."""
    path = [next(n for n in parents if n not in done)]
    while path[-1] not in path[:-1]:
        path.append(next(p for p in parents[path[-1]] if p not in done))
    return path[path.index(path[-1]) :][::-1]
