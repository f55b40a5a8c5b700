"""README's tables of what there is, from the registries themselves."""

import importlib
import inspect
import re

import jax
import jax.numpy as jnp

from mtl_jax import balancing
from mtl_jax.balancing import Needs, options
from mtl_jax.balancing.advice import WHEN
from mtl_jax.balancing.options import jacobian_sized

TASKS = 5  # enough for every method
COST = {
    Needs.LOSSES: "a plain step",
    Needs.GRAMIAN: "a pull of the trunk per task",
    Needs.JACOBIAN: "a pull of the trunk per task, all held",
    Needs.CROSS: "two pulls of the trunk per task",
    Needs.ORACLE: "some plain steps",
}


def keeps(balancer: balancing.Balancer) -> str:
    """What its state holds: nothing, something per task, or as much as the Jacobian."""
    if jacobian_sized(balancer, TASKS):
        return "a Jacobian"
    state = jax.eval_shape(lambda: balancer.init(TASKS, {"shared/w": jnp.zeros(5)}))
    return "a few numbers per task" if jax.tree.leaves(state) else "none"


def methods_markdown() -> str:
    """A row per method: what it does, when to use it, what it reads and keeps, what a step costs, and the paper."""
    rows = [
        "| balancer | what it does | when to use it | reads | state | cost of a step | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, function in balancing.NAMES.items():
        required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        balancer = function((1.0,) * TASKS) if required else function()
        first = inspect.getdoc(function).split("\n\n")[0].replace("\n", " ")
        module = inspect.getdoc(importlib.import_module(inspect.unwrap(function).__module__)).replace("\n", " ")
        papers = [
            "; ".join(re.findall(r"[^()]*\b(?:19|20)\d\d\b[^()]*", p)) for p in re.findall(r"\(([^()]*)\)", module)
        ]
        paper = "; ".join(p for p in papers if p)
        cost = COST[balancer.needs] + (" and a forward pass" if balancer.after else "")
        cells = (f"`{name}`", first, WHEN[name], balancer.needs.value, keeps(balancer), cost, paper)
        rows.append(f"| {' | '.join(c.replace('|', '&#124;') for c in cells)} |")
    return "\n".join(rows)


def options_markdown() -> str:
    """Which option goes with which method: the table of `balancing.options`."""
    return "\n".join(line for line in options.__doc__.splitlines() if line.startswith("|"))
