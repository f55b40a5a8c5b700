"""Where and how per-task gradients are taken, and which options go with which method.

| option | losses | Gramian | Jacobian | two samples | validation batches | losses at other parameters |
|---|---|---|---|---|---|---|
| `engine` "map", "vmap", a number of rows | no effect | yes | yes | yes | no effect | no effect |
| `engine` "layers", "columns" | no effect | yes | no | yes | no effect | no effect |
| `level` "features" | no | yes, on common features | without Jacobian-sized state | no | no | no |
| `balance_paths` | no | yes | no | yes | no | no |
| `update_every` | yes | yes | those that return weights | yes | those that return weights | no |
| `objectives` "examples" | no | without state | without state | no | no | no |
| `monitor` | nothing to log | yes | no effect | no effect | no effect | no effect |
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from mtl_jax import partition, parts
from mtl_jax.balancing.base import Balancer, Keeps, Needs
from mtl_jax.gradients.linearization import MODES

LEVELS = ("parameters", "features")
OBJECTIVES = ("tasks", "examples")
BUDGET = 2 * 2**30  # bytes that a held Jacobian may take where the device does not say how much it has
SMALL, AT_ONCE = 64 * 2**10, 256 * 2**10  # bytes of a row that a CPU pulls with others, and of those rows together


class Options(NamedTuple):
    """How a step takes per-task gradients.

    Attributes:
      mode: "map" pulls the Jacobian's rows one by one, "vmap" at once, an integer that many at once; "layers" does as
        "map" but keeps the factors of wide dense layers' rows (see `gradients.dense_factors`; not under pmap, where
        a device has not all rows); "columns" makes the Gramian without ever holding the Jacobian; "auto" is one of
        these, see `resolve`.
      level: gradients by the shared "parameters", or by the "features" that all heads read, which is cheap
        (as MGDA-UB of Sener and Koltun 2018).
      paths: the shared leaves whose gradients the method sees; its weights then apply to all. None: all.
      update_every: steps between updates of the weights; in between the last ones are used, at a plain step's cost.
      objectives: what a row of the Jacobian is the gradient of: the loss of each of the "tasks", or of each task on
        each of the "examples" (instance-wise risk minimisation; Quinton and Rey 2024, section 4).
      monitor: whether gradient norms, cosines and the share of conflicts are logged where a Gramian exists.
    """

    mode: str | int = "auto"
    level: str = "parameters"
    paths: frozenset[str] | None = None
    update_every: int = 1
    objectives: str = "tasks"
    monitor: bool = True


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


def check(options: Options, balancer: Balancer, common_features: bool) -> None:
    """An error for options that do not go with the method or the model, saying what does."""
    name = balancer.spec or "the given balancer"
    if options.mode not in (*MODES, "auto") and not (isinstance(options.mode, int) and options.mode > 0):
        raise ValueError(
            f"unknown engine {options.mode!r}; (auto, {', '.join(MODES)}, or how many rows to pull at once)"
        )
    if options.level not in LEVELS:
        raise parts.unknown("level", options.level, LEVELS)
    if options.objectives not in OBJECTIVES:
        raise parts.unknown("objectives", options.objectives, OBJECTIVES)
    if options.update_every < 1:
        raise ValueError(f"update_every={options.update_every} must be at least 1")
    if options.mode in ("layers", "columns") and balancer.needs is Needs.JACOBIAN:
        raise ValueError(f"{name} reads the Jacobian, which engine {options.mode!r} never holds; "
                         "use 'map', 'vmap' or 'auto'")  # fmt: skip
    if options.objectives == "examples":
        if balancer.needs not in (Needs.GRAMIAN, Needs.JACOBIAN):
            raise ValueError("objectives='examples' needs a method that reads the Gramian or the Jacobian; "
                             f"{name} reads {balancer.needs.value}")  # fmt: skip
        if balancer.memory is not Keeps.NOTHING:
            raise ValueError(f"{name} keeps something per objective from step to step, but examples change with the "
                             "batch; use objectives='tasks'")  # fmt: skip
        if options.update_every > 1:
            raise ValueError("objectives='examples' change with the batch, so their weights cannot be used again; "
                             "leave update_every out")  # fmt: skip
        if options.level == "features":
            raise ValueError("objectives='examples' are taken by the parameters; leave level='features' out")
    if options.level == "features":
        if balancer.needs is Needs.LOSSES:
            raise ValueError(f"{name} reads no gradients, so level='features' has no effect; leave it out")
        if balancer.needs is Needs.CROSS or balancer.needs.functions:
            raise ValueError(f"{name} reads {balancer.needs.value}, by the parameters only; leave level='features' out")
        if not common_features:
            raise ValueError("level='features' needs features that all heads read; this model's are per task")
        if balancer.needs is Needs.JACOBIAN and balancer.memory is Keeps.JACOBIAN:
            raise ValueError(f"{name} tracks gradients from step to step, but features change with the batch; "
                             "use level='parameters'")  # fmt: skip
        if options.paths is not None:
            raise ValueError("balance_paths chooses among parameters; it does not go with level='features'")
    if options.paths is not None and balancer.needs not in (Needs.GRAMIAN, Needs.CROSS):
        raise ValueError(f"balance_paths needs a method that reads the Gramian; {name} reads {balancer.needs.value}")
    if options.update_every > 1 and balancer.directs:
        raise ValueError(f"update_every={options.update_every} needs weights to use again; {name} returns a direction")


def check_batch(balancer: Balancer, batch_size: int, devices: int, validation: bool) -> None:
    """An error for a method that needs what the batches can't give."""
    name = balancer.spec or "the given balancer"
    if balancer.needs is Needs.CROSS and batch_size % (2 * devices):
        count = f"{2 * devices} (two halves on each of {devices} devices)" if devices > 1 else "2"
        raise ValueError(f"{name} needs two samples, the halves of a batch: batch_size={batch_size} must be a multiple "
                         f"of {count}")  # fmt: skip
    if balancer.needs is Needs.ORACLE and not validation:
        raise ValueError(f"{name} learns from validation batches, and the data set has no validation split; make "
                         "one (val=0.2), or use a method that reads training batches only: 'uncertainty'")  # fmt: skip


def resolve(
    mode: str | int, balancer: Balancer, num_tasks: int, template: dict[str, Any], copies: int = 1
) -> tuple[str | int, str]:
    """(the mode that "auto" stands for, why), by the bytes of a held Jacobian and those of the device.

    `num_tasks` counts the Jacobian's rows, and `copies` the runs that train side by side.

    An accelerator pulls rows at once. A CPU pulls them one by one, as a row's matrix products keep it busy and its
    cache full, and where the Gramian is enough it makes that of wide dense layers from factors; where a row is small,
    what a call costs counts for more, and several go together. Where the Jacobian would take more than a quarter of
    the device's memory and the Gramian is enough, it is never held.
    """
    row = copies * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(template))
    size = num_tasks * row
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    budget = limit // 4 if limit else BUDGET
    said = f"a Jacobian of {num_tasks} rows takes {size / 2**20:.1f} MiB of {budget / 2**20:.0f}"
    if balancer.needs is Needs.LOSSES or balancer.needs.functions:
        return "map" if mode == "auto" else mode, f"none: the method reads {balancer.needs.value} only"
    if num_tasks == 1:
        said += "; one task only: whatever the method, this is plain training"
    if mode != "auto":
        return mode, f"{mode}: as asked for; {said}"
    if size > budget and balancer.needs in (Needs.GRAMIAN, Needs.CROSS):
        return "columns", f"columns: {said}"
    if device.platform != "cpu":
        return "vmap", f"vmap: {said}"
    if not 0 < row <= SMALL:
        one_by_one = "layers" if balancer.needs is Needs.GRAMIAN else "map"
        return one_by_one, f"{one_by_one}: {said}"
    rounds = -(-num_tasks // (AT_ONCE // row))
    if rounds == 1:
        return "vmap", f"vmap: {said}"
    each = -(-num_tasks // rounds)
    return each, f"{each} rows at once: {said}"
