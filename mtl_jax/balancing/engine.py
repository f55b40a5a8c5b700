"""Per-task gradients of one forward pass: heads run once, the trunk is pulled back as often as a method needs.

One backward pass of the summed losses through the heads gives every head's gradient and, decode being separable, the
K cotangents at the features. From there the trunk's Jacobian, its Gramian and any weighted sum of task gradients are
pulls of combinations of those cotangents.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import partition
from mtl_jax.balancing.gramian import gramian
from mtl_jax.balancing.options import MODES
from mtl_jax.batch import Batch, PerTask
from mtl_jax.parallel import global_sum, local_key, num_devices
from mtl_jax.sharing.model import MultiTaskModel, merge, spread
from mtl_jax.tasks import Task, loss_sum

Gradient = dict[str, Array]  # {path: array}, trainable leaves only


class Linearization(NamedTuple):
    """What one forward pass offers to a step; the functions pull gradients on demand.

    Attributes:
      losses: [K], the mean over the labelled elements of the global batch; 0 for a task without labels.
      labelled: [K], whether a task has labels in the batch.
      finite: [K], whether its loss is finite. Tasks that are not labelled or not finite are cut off everywhere below.
      state: the model's state after the pass.
      metrics: what the model reports of itself.
      jacobian: () -> {path: [K, ...]} over trainable shared leaves.
      gramian: () -> [K, K], the inner products of the rows of the Jacobian.
      weighted: ([K]) -> {path: array}, the weighted sum of the rows, over all trainable shared leaves.
      at_features: () -> {path in the features: [K, ...]}, the Jacobian by the features that all heads read; under pmap
        of this device's rows.
      along: ({path in the features: array}) -> {path: array}, a direction at the features pulled back.
      own: () -> {path: array}, each trainable leaf under ``tasks/<t>`` by task t's own loss.
      extra: () -> {path: array} over all trainable leaves, the gradient of what is added outside the balancer:
        penalties, auxiliary and joint losses.
    """

    losses: Float[Array, " task"]
    labelled: Bool[Array, " task"]
    finite: Bool[Array, " task"]
    state: Any
    metrics: dict[str, Array]
    jacobian: Callable[[], Gradient]
    gramian: Callable[[], Float[Array, "task task"]]
    weighted: Callable[[Float[Array, " task"]], Gradient]
    at_features: Callable[[], Gradient]
    along: Callable[[Gradient], Gradient]
    own: Callable[[], Gradient]
    extra: Callable[[], Gradient]


class JointLoss(NamedTuple):
    """A loss over several tasks' outputs, added outside the balancer.

    Attributes:
      name: as logged.
      function: ({task: outputs}, {task: targets}, {task: masks}) -> (sum over examples, number of examples); the loss
        is their ratio over the global batch.
      weight: its factor.
    """

    name: str
    function: Callable
    weight: float = 1.0


def task_losses(
    tasks: Sequence[Task], outputs: dict[str, Array], batch: Batch
) -> tuple[Float[Array, " task"], Float[Array, " task"]]:
    """([K] sums of losses over this device's labelled elements, [K] counts over the global batch)."""
    pairs = [loss_sum(t, outputs[t.name], batch.targets[t.name], batch.masks[t.name]) for t in tasks]
    return jnp.stack([s for s, _ in pairs]), global_sum(jnp.stack([n for _, n in pairs]))


class Branch(NamedTuple):
    """One linearised computation of features: pull is its transpose, push its tangent map (columns mode only)."""

    names: tuple[str, ...]  # the tasks that it serves
    pull: Callable
    push: Callable | None
    no_aux: dict[str, Array]  # zeros like its auxiliary losses


def linearize(
    model: MultiTaskModel,
    variables: Any,
    batch: Batch,
    *,
    rng: Any = None,
    train: Any = True,
    trainable: frozenset[str] | None = None,
    mode: str | int = "map",
    paths: frozenset[str] | None = None,
    tasks: Sequence[Task] | None = None,
    joint: Sequence[JointLoss] = (),
) -> Linearization:
    """Runs the model once and offers the gradients of its K losses.

    Args:
      model, variables, batch: what to differentiate, and where.
      rng: key of the pass.
      train: bool, or a function of paths (see `MultiTaskModel`).
      trainable: paths of the leaves to differentiate by; None for all.
      mode: how the Jacobian's rows are pulled: "map" one by one, "vmap" at once, an integer that many at once, or
        "columns": the Gramian as J (J^T e_j) without ever holding J, one tangent map after one pull per task.
      paths: of the shared leaves that `jacobian` and `gramian` are about; None for all.
      tasks: the model's tasks with their scalers, if the model's own lack them.
      joint: losses over several tasks' outputs.
    """
    check_mode(mode)
    tasks = tuple(tasks or model.tasks)
    names = tuple(t.name for t in tasks)
    rng = None if rng is None else local_key(rng)
    flat = partition.flatten(variables["params"])
    chosen = {p: v for p, v in flat.items() if trainable is None or p in trainable}
    shared = {p: v for p, v in chosen.items() if partition.owner(p) == "shared"}
    private = {p: v for p, v in chosen.items() if partition.owner(p) != "shared"}

    def with_leaves(*leaves: Gradient) -> Any:
        updated = {p: v for part in leaves for p, v in part.items()}
        return {**variables, "params": partition.unflatten(updated, variables["params"])}

    # --- forward through the trunk -------------------------------------------------------------------------------
    def encode(shared: Gradient, private: Gradient, subset: tuple[str, ...] | None) -> tuple[Any, Any]:
        features, new_state, aux = model.encode(with_leaves(shared, private), batch, train=train, rng=rng, tasks=subset)
        return (features, aux["losses"]), (new_state, aux["metrics"])

    branched = model.features == "branched" or isinstance(batch.inputs, PerTask)
    branches, parts_of_features, new_state, metrics, aux_losses = [], {}, {}, {}, {}
    for subset in [(n,) for n in names] if branched else [None]:
        if mode == "columns":
            (features, aux), push, (changed, reported) = jax.linearize(
                lambda s, p, subset=subset: encode(s, p, subset), shared, private, has_aux=True
            )
            pull = jax.linear_transpose(push, shared, private)
        else:
            (features, aux), pull, (changed, reported) = jax.vjp(
                lambda s, p, subset=subset: encode(s, p, subset), shared, private, has_aux=True
            )
            push = None
        branches.append(Branch(subset or names, pull, push, jax.tree.map(jnp.zeros_like, aux)))
        parts_of_features |= {n: features[n] for n in subset} if branched else spread(model, features)
        new_state, metrics, aux_losses = merge(new_state, changed), metrics | reported, aux_losses | aux
    one_value = not branched and not isinstance(features, PerTask)

    # --- heads: one forward, one backward of the summed losses -----------------------------------------------------
    def decode(private: Gradient, features: dict[str, Any]) -> tuple[dict[str, Array], Any]:
        return model.decode(with_leaves(private), features, train=train, rng=rng)

    outputs, pull_heads, decoded = jax.vjp(decode, private, parts_of_features, has_aux=True)
    new_state = merge(merge(variables["state"], new_state), decoded)

    def mean_losses(outputs: dict[str, Array]) -> tuple[Array, tuple[Array, Array]]:
        sums, counts = task_losses(tasks, outputs, batch)
        local = sums / jnp.maximum(counts, 1)
        return local.sum(), (local, counts)

    by_output, (local, counts) = jax.grad(mean_losses, has_aux=True)(outputs)
    losses = global_sum(local)
    labelled, finite = counts > 0, jnp.isfinite(losses)
    usable = labelled & finite
    own_gradient, cotangents = pull_heads(by_output)
    position = {n: i for i, n in enumerate(names)}

    def cut(tree: Any, name: str) -> Any:
        # 0 * nan is nan: a task is cut off by selection, not by its weight.
        return jax.tree.map(lambda x: jnp.where(usable[position[name]], x, 0), tree)

    cotangents = {n: cut(cotangents[n], n) for n in names}

    # --- pulls through the trunk -----------------------------------------------------------------------------------
    def seed(branch: Branch, weights: Float[Array, " task"], by_task: dict[str, Any]) -> tuple[Any, Any]:
        scaled = {n: jax.tree.map(lambda x, n=n: weights[position[n]].astype(x.dtype) * x, by_task[n]) for n in names}
        if one_value:
            return jax.tree.map(lambda *x: sum(x), *scaled.values()), branch.no_aux
        return PerTask({n: scaled[n] for n in branch.names}), branch.no_aux

    def pull(weights: Float[Array, " task"], by_task: dict[str, Any]) -> tuple[Gradient, Gradient]:
        pulled = [branch.pull(seed(branch, weights, by_task)) for branch in branches]
        return jax.tree.map(lambda *x: sum(x), *pulled)

    unit = jnp.eye(len(names), dtype=losses.dtype)

    def seen(gradient: Gradient) -> Gradient:
        return gradient if paths is None else {p: g for p, g in gradient.items() if p in paths}

    def row(index: Array) -> Gradient:
        return global_sum(seen(pull(unit[index], cotangents)[0]))

    def stacked() -> Any:
        return jax.tree.map(lambda *x: jnp.stack(x), *(cotangents[n] for n in names))

    def jacobian() -> Gradient:
        if branched:
            rows = [seen(branch.pull(seed(branch, unit[i], cotangents))[0]) for i, branch in enumerate(branches)]
            return global_sum(jax.tree.map(lambda *x: jnp.stack(x), *rows))
        if one_value:
            return over_rows(lambda x: global_sum(seen(branches[0].pull((x, branches[0].no_aux))[0])), stacked(), mode)
        return over_rows(row, jnp.arange(len(names)), mode)

    def at_features() -> Gradient:
        if not one_value:
            raise ValueError("the Jacobian at the features needs features that all heads read; these are per task")
        return partition.flatten(stacked())

    def along(direction: Gradient) -> Gradient:
        tree = partition.unflatten(direction, cotangents[names[0]])
        return global_sum(branches[0].pull((tree, branches[0].no_aux))[0])

    def column(index: Array) -> Float[Array, " task"]:
        # Leaves outside `paths` do not move.
        direction = {p: jnp.zeros_like(v) for p, v in shared.items()} | row(index)
        still = jax.tree.map(jnp.zeros_like, private)
        moved = {}
        for branch in branches:
            (tangent, _) = branch.push(direction, still)
            moved |= {n: tangent if one_value else tangent[n] for n in branch.names}
        return global_sum(jnp.stack([inner(cotangents[n], moved[n]) for n in names]))

    def gram() -> Float[Array, "task task"]:
        if mode != "columns":
            return gramian(jacobian())
        columns = jax.lax.map(column, jnp.arange(len(names)))
        return (columns + columns.T) / 2

    def weighted(weights: Float[Array, " task"]) -> Gradient:
        return global_sum(pull(weights, cotangents)[0])

    def own() -> Gradient:
        # Leaves of tasks/* that encode reads are pulled with ones; for the others this part is constant zero.
        read_early = pull(jnp.ones(len(names), losses.dtype), cotangents)[1]
        total = {p: own_gradient[p] + read_early[p] for p in private}
        return {p: cut(g, partition.owner(p)) for p, g in global_sum(total).items()}

    # --- what is added outside the balancer ------------------------------------------------------------------------
    def extra() -> Gradient:
        total = jax.tree.map(jnp.zeros_like, chosen)

        def add(gradient: Gradient) -> None:
            for p, g in gradient.items():
                total[p] = total[p] + g

        if joint:
            add(joint_gradient())
        if aux_losses:
            nothing = {n: jax.tree.map(jnp.zeros_like, c) for n, c in cotangents.items()}
            for branch in branches:
                features, aux = seed(branch, jnp.ones(len(names), losses.dtype), nothing)
                # A device reports the mean over its own rows; the mean over all is that divided by their number.
                shared_part, early_part = branch.pull((features, jax.tree.map(lambda x: x + 1 / num_devices(), aux)))
                add(global_sum(shared_part | early_part))
        add(jax.grad(lambda leaves: model.penalty(with_leaves(leaves)))(chosen))
        return total

    def joint_gradient() -> Gradient:
        def value(outputs: dict[str, Array]) -> Array:
            total = jnp.zeros((), losses.dtype)
            for loss in joint:
                summed, count = loss.function(outputs, batch.targets, batch.masks)
                total = total + loss.weight * summed / jnp.maximum(global_sum(count), 1)
            return total

        private_part, by_task = pull_heads(jax.grad(value)(outputs))
        shared_part, early_part = pull(jnp.ones(len(names), losses.dtype), by_task)
        return global_sum(shared_part | {p: private_part[p] + early_part[p] for p in private})

    return Linearization(
        losses, labelled, finite, new_state, metrics, jacobian, gram, weighted, at_features, along, own, extra
    )


def check_mode(mode: str | int) -> None:
    """An error for a mode that is neither one of `MODES` nor a positive number of rows."""
    if mode not in MODES and not (isinstance(mode, int) and mode > 0):
        raise ValueError(f"unknown engine mode {mode!r}; ({', '.join(MODES)}, or how many rows to pull at once)")


def inner(left: Any, right: Any) -> Float[Array, ""]:
    """The inner product of two trees, in float32 at least and at highest precision."""
    products = jax.tree.map(
        lambda a, b: jnp.vdot(
            a, b, precision="highest", preferred_element_type=jnp.promote_types(a.dtype, jnp.float32)
        ),
        left,
        right,
    )
    return sum(jax.tree.leaves(products))


def over_rows(function: Callable, rows: Any, mode: str | int) -> Any:
    """`function` over the leading axis of `rows`: one by one, all at once, or in chunks."""
    if mode == "vmap":
        return jax.vmap(function)(rows)
    return jax.lax.map(function, rows, batch_size=mode if isinstance(mode, int) and mode > 1 else None)


__all__ = ["JointLoss", "Linearization", "linearize", "task_losses"]
