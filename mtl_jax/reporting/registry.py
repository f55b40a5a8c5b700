"""The documentation's tables of what there is, from the registries themselves."""

import inspect
from collections.abc import Callable
from typing import Any

from mtl_jax import balancing, encoders, kinds, parts, sharing
from mtl_jax.balancing import Keeps, Needs, options

COST = {
    Needs.LOSSES: "a plain step",
    Needs.GRAMIAN: "a pull of the trunk per task",
    Needs.JACOBIAN: "a pull of the trunk per task, all held",
    Needs.CROSS: "two pulls of the trunk per task",
    Needs.ORACLE: "some plain steps",
    Needs.LANDSCAPE: "a pull of the whole model and two forward passes per task",
}
KEPT = {Keeps.NOTHING: "none", Keeps.PER_TASK: "a few numbers per task", Keeps.JACOBIAN: "a Jacobian"}


def methods_markdown() -> str:
    """A row per method: what it does, when to use it, what it reads and keeps, what a step costs, and the paper."""
    rows = [
        "| balancer | what it does | when to use it | reads | state | cost of a step | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    methods: dict[str, Any] = {**balancing.NAMES}
    for name, function in methods.items():
        balancer = parts.example_of(function)
        cost = COST[balancer.needs] + (" and a forward pass" if balancer.after else "")
        cells = (name, does(function), function.when, balancer.needs.value, KEPT[balancer.memory], cost, function.paper)
        rows.append(row(*cells))
    return "\n".join(rows)


def sharing_markdown() -> str:
    """A row per architecture: what is shared, when to use it, what inputs it takes, and the paper."""
    rows = ["| sharing | what it does | when to use it | inputs | paper |", "|---|---|---|---|---|"]
    for name, function in sharing.NAMES.items():
        inputs = "common, or each task's own" if name in sharing.OWN_INPUTS else "common"
        rows.append(row(name, does(function), function.when, inputs, function.paper))
    return "\n".join(rows)


def encoders_markdown() -> str:
    """A row per encoder: what it is, when to use it, and the paper."""
    made: dict[str, Any] = {**encoders.NAMES}
    rows = ["| encoder | what it is | when to use it | paper |", "|---|---|---|---|"]
    return "\n".join([*rows, *(row(name, does(f), f.when, f.paper) for name, f in made.items())])


def kinds_markdown() -> str:
    """A row per kind of task: loss, metrics and head by default."""
    rows = ["| kind | loss | metrics | head |", "|---|---|---|---|"]
    for name, kind in kinds.KINDS.items():
        rows.append(row(name, *(f"`{x}`" for x in (kind.loss, ", ".join(kind.metrics), kind.head))))
    return "\n".join(rows)


def row(name: str, *cells: str) -> str:
    """A line of a table whose first cell is a name in the code."""
    return f"| {' | '.join(c.replace('|', '&#124;') for c in (f'`{name}`', *cells))} |"


def docstring(of: Any) -> str:
    """Its docstring, without indentation; "" where there is none."""
    return inspect.getdoc(of) or ""


def does(function: Callable) -> str:
    """The first paragraph of a docstring, on one line."""
    return docstring(function).split("\n\n")[0].replace("\n", " ")


def options_markdown() -> str:
    """Which option goes with which method: the table of `balancing.options`."""
    return "\n".join(line for line in options.__doc__.splitlines() if line.startswith("|"))
