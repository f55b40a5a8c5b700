"""Where and how per-task gradients are taken, and which options go with which method.

| option | methods that read losses | Gramian | Jacobian |
|---|---|---|---|
| `engine` "map", "vmap", a number of rows | no effect | yes | yes |
| `engine` "columns" | no effect | yes | no: they need the Jacobian itself |
| `level` "features" | no: they read no gradient | yes, on common features | without Jacobian-sized state |
| `balance_paths` | no: they read no gradient | yes | no: they move every coordinate by itself |
| `update_every` | yes | yes | only those that return weights |
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax import partition, parts
from mtl_jax.balancing.base import Balancer, Needs, Signal

MODES = ("map", "vmap", "columns")
LEVELS = ("parameters", "features")
BUDGET = 2 * 2**30  # bytes that a held Jacobian may take where the device does not say how much it has


class Options(NamedTuple):
    """How a step takes per-task gradients.

    Attributes:
      mode: "map" pulls the Jacobian's rows one by one, "vmap" at once, an integer that many at once; "columns" makes
        the Gramian without ever holding the Jacobian; "auto" is one of these, see `resolve`.
      level: gradients by the shared "parameters", or by the "features" that all heads read, which is cheap
        (as MGDA-UB of Sener and Koltun 2018).
      paths: the shared leaves whose gradients the method sees; its weights then apply to all. None: all.
      update_every: steps between updates of the weights; in between the last ones are used, at a plain step's cost.
    """

    mode: str | int = "auto"
    level: str = "parameters"
    paths: frozenset[str] | None = None
    update_every: int = 1


ONE_BY_ONE = Options("map")


def matching(rules: str | Sequence[str] | None, trainable: frozenset[str]) -> frozenset[str] | None:
    """The trainable shared leaves that any of the regexes matches; None for no regex.

    Raises:
      ValueError: if a regex matches none of them.
    """
    if not rules:
        return None
    shared = sorted(p for p in trainable if partition.owner(p) == "shared")
    rules = (rules,) if isinstance(rules, str) else tuple(rules)
    return frozenset(p for p, on in partition.match([(r, True) for r in rules], shared, False).items() if on)


def check(options: Options, balancer: Balancer, num_tasks: int, common_features: bool) -> None:
    """An error for options that do not go with the method or the model, saying what does."""
    name = balancer.spec or "the given balancer"
    if options.mode not in (*MODES, "auto") and not (isinstance(options.mode, int) and options.mode > 0):
        raise ValueError(
            f"unknown engine {options.mode!r}; (auto, {', '.join(MODES)}, or how many rows to pull at once)"
        )
    if options.level not in LEVELS:
        raise parts.unknown("level", options.level, LEVELS)
    if options.update_every < 1:
        raise ValueError(f"update_every={options.update_every} must be at least 1")
    if options.mode == "columns" and balancer.needs is Needs.JACOBIAN:
        raise ValueError(f"{name} reads the Jacobian, which engine 'columns' never holds; use 'map', 'vmap' or 'auto'")
    if options.level == "features":
        if balancer.needs is Needs.LOSSES:
            raise ValueError(f"{name} reads no gradients, so level='features' has no effect; leave it out")
        if not common_features:
            raise ValueError("level='features' needs features that all heads read; this model's are per task")
        if balancer.needs is Needs.JACOBIAN and jacobian_sized(balancer, num_tasks):
            raise ValueError(f"{name} tracks gradients from step to step, but features change with the batch; "
                             "use level='parameters'")  # fmt: skip
        if options.paths is not None:
            raise ValueError("balance_paths chooses among parameters; it does not go with level='features'")
    if options.paths is not None and balancer.needs is not Needs.GRAMIAN:
        raise ValueError(f"balance_paths needs a method that reads the Gramian; {name} reads {balancer.needs.value}")
    if options.update_every > 1 and balancer.needs is Needs.JACOBIAN and not returns_weights(balancer, num_tasks):
        raise ValueError(f"update_every={options.update_every} needs weights to use again; {name} returns a direction")


def resolve(mode: str | int, balancer: Balancer, num_tasks: int, template: dict[str, Any]) -> tuple[str | int, str]:
    """(the mode that "auto" stands for, why), by the bytes of a held Jacobian and those of the device.

    A CPU pulls rows one by one, an accelerator at once; where the Jacobian would take more than a quarter of the
    device's memory and the Gramian is enough, it is never held.
    """
    size = num_tasks * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(template))
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    budget = limit // 4 if limit else BUDGET
    said = f"a Jacobian of {num_tasks} tasks takes {size / 2**20:.1f} MiB of {budget / 2**20:.0f}"
    if mode != "auto":
        return mode, f"{mode}: as asked for; {said}"
    if balancer.needs is Needs.LOSSES:
        return "map", "none: the method reads losses only"
    if size > budget and balancer.needs is Needs.GRAMIAN:
        return "columns", f"columns: {said}"
    chosen = "map" if device.platform == "cpu" else "vmap"
    return chosen, f"{chosen}: {said}"


def jacobian_sized(balancer: Balancer, num_tasks: int) -> bool:
    """Whether a method's state grows with the number of parameters."""
    sizes = [
        sum(
            x.size
            for x in jax.tree.leaves(jax.eval_shape(lambda n=n: balancer.init(num_tasks, {"shared/w": jnp.zeros(n)})))
        )
        for n in (5, 500)
    ]
    return sizes[1] > sizes[0]


def returns_weights(balancer: Balancer, num_tasks: int) -> bool:
    """Whether a method that reads the Jacobian decides on weights rather than on a direction."""
    rows = {"shared/w": jnp.zeros((num_tasks, 2))}

    def update() -> Any:
        state = balancer.init(num_tasks, {"shared/w": jnp.zeros(2)})
        signal = Signal(jnp.ones(num_tasks), jacobian=rows)
        return balancer.update(signal, state, mask=jnp.ones(num_tasks, bool), key=jax.random.key(0))[0].weights

    return jax.eval_shape(update) is not None
