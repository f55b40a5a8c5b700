"""Per-task gradients of one forward pass: heads run once, the trunk is pulled back as often as a method needs.

One backward pass of the summed losses through the heads gives every head's gradient and, decode being separable, the
K cotangents at the features. From there the trunk's Jacobian, its Gramian and any weighted sum of task gradients are
pulls of combinations of those cotangents (`trunk`). In mode "columns" the cotangents are not kept either: each is made
anew from its own head, so that memory does not grow with the number of tasks.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import partition
from mtl_jax.balancing import layers, rows, units
from mtl_jax.balancing.finite import all_finite
from mtl_jax.balancing.gramian import gramian, product
from mtl_jax.balancing.linearization import Examples, Gradient, JointLoss, Linearization
from mtl_jax.balancing.options import MODES
from mtl_jax.balancing.pulls import floats, row_products, scale_rows, with_transpose
from mtl_jax.balancing.trunk import Branch, Trunk
from mtl_jax.batch import Batch, PerTask, labels_of
from mtl_jax.members import Outputs, each
from mtl_jax.parallel import data_axis, global_sum, local_key, num_devices
from mtl_jax.scaler import own_units
from mtl_jax.sharing.model import MultiTaskModel, merge, spread
from mtl_jax.tasks import Task, divisor, elements, loss_sum, task_losses


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
    check_heads: bool = True,
) -> Linearization:
    """Runs the model once and offers the gradients of its K losses.

    Args:
      model, variables, batch: what to differentiate, and where.
      rng: key of the pass.
      train: bool, or a function of paths (see `MultiTaskModel`).
      trainable: paths of the leaves to differentiate by; None for all.
      mode: how the Jacobian's rows are pulled: "map" one by one, "vmap" at once, an integer that many at once;
        "layers": one by one, and of dense layers wider than the batch only the factors (`layers`); or "columns": the
        Gramian as J (J^T e_j) without ever holding J, one tangent map after one pull per task.
      paths: of the shared leaves that `jacobian`, `gramian` and `cross` are about; None for all.
      tasks: the model's tasks with their scalers, if the model's own lack them.
      joint: losses over several tasks' outputs.
      check_heads: whether a task counts as finite only if what comes back from it through its head is, too.
    """
    check_mode(mode)
    tasks = tuple(tasks or model.tasks)
    names = tuple(t.name for t in tasks)
    position = {n: i for i, n in enumerate(names)}
    rng = None if rng is None else local_key(rng)
    flat = partition.flatten(variables["params"])
    chosen = {p: v for p, v in flat.items() if trainable is None or p in trainable}
    shared = {p: v for p, v in chosen.items() if partition.owner(p) == "shared"}
    private = {p: v for p, v in chosen.items() if partition.owner(p) != "shared"}
    columns = mode == "columns"

    def with_leaves(*leaves: Gradient) -> Any:
        updated = {p: v for part in leaves for p, v in part.items()}
        return {**variables, "params": partition.unflatten(updated, variables["params"])}

    # --- forward through the trunk -------------------------------------------------------------------------------
    def encode(shared: Gradient, private: Gradient, subset: tuple[str, ...] | None) -> tuple[Any, Any]:
        whole, new_state, aux = model.encode(with_leaves(shared, private), batch, train=train, rng=rng, tasks=subset)
        apart = isinstance(whole, PerTask)
        features = {n: floats(x) for n, x in whole.items()} if apart else floats(whole)
        return features, (whole, new_state, aux)

    branched = model.features == "branched" or isinstance(batch.inputs, PerTask)
    opened, notes = None, []
    if mode == "layers":
        kernels = [p for p, x in shared.items() if x.ndim == 2 and (paths is None or p in paths)]
        if branched or data_axis():
            notes.append(layers.nothing("every task has a branch of its own" if branched else "under pmap"))
        else:
            opened = layers.take_apart(lambda s, p: encode(s, p, None), kernels, len(names), shared, private)
            if not opened.zeros:
                notes.append(layers.nothing(opened.left))

    def run(shared: Gradient, private: Gradient, added: Gradient, subset: tuple[str, ...] | None) -> tuple[Any, Any]:
        """`encode`, with zeros added to the outputs of factored layers: a pull to those is the layers' cotangents."""
        if opened is None:
            (features, aux), inputs = encode(shared, private, subset), {}
        else:
            (features, aux), inputs = opened.run(shared, private, added)
        return features, (inputs, *aux)

    branches, whole, features, new_state, metrics, has_aux_losses = [], {}, {}, {}, {}, False
    subsets = [(n,) for n in names] if branched else [None]
    for subset in subsets:
        found, pull, push, (inputs, value, changed, aux) = with_transpose(
            lambda s, p, a, subset=subset: run(s, p, a, subset),
            columns,
            shared,
            private,
            opened.zeros if opened else {},
        )
        branches.append(Branch(subset or names, pull, push))
        one_value = not isinstance(value, PerTask)
        whole |= {n: value[n] for n in subset} if branched else spread(model, value)
        features |= {n: found if one_value else found[n] for n in subset or names}
        new_state, metrics = merge(new_state, changed), metrics | aux["metrics"]
        has_aux_losses |= bool(aux["losses"])

    kept = not (columns and one_value)  # whether the cotangents are; "columns" makes each anew where one is enough

    # --- heads: one forward, one backward of the summed losses -----------------------------------------------------
    def decode(private: Gradient, features: dict[str, Gradient]) -> tuple[dict[str, Outputs], Any]:
        read = {n: partition.unflatten(x, whole[n]) for n, x in features.items()}
        return model.decode(with_leaves(private), read, train=train, rng=rng)

    outputs, pull_heads, push_heads, decoded = with_transpose(decode, columns, private, features)
    new_state = merge(merge(variables["state"], new_state), decoded)

    def mean_losses(outputs: dict[str, Outputs]) -> tuple[Array, tuple[Array, Array]]:
        sums, counts = task_losses(tasks, outputs, batch)
        local = sums / divisor(counts)
        return local.sum(), (local, counts)

    by_output, (local, counts) = jax.grad(mean_losses, has_aux=True)(outputs)
    losses = global_sum(local)
    own_gradient, cotangents = pull_heads(by_output)
    finite = jnp.isfinite(losses)
    if check_heads:
        of_head = {n: [g for p, g in own_gradient.items() if partition.owner(p) == n] for n in names}
        broken = [~all_finite((by_output[n], cotangents[n] if kept else (), of_head[n])) for n in names]
        finite &= global_sum(jnp.stack(broken).astype(jnp.int32)) == 0
    labelled = counts > 0
    usable = labelled & finite

    def cut(tree: Any, name: str) -> Any:
        # 0 * nan is nan: a task is cut off by selection, not by its weight.
        return jax.tree.map(lambda x: jnp.where(usable[position[name]], x, 0), tree)

    cotangents = {n: cut(cotangents[n], n) for n in names}

    def remade(name: str, factor: Array) -> Gradient:
        # Rows are taken apart at the output, where they belong to the loss, whatever the head does with them.
        _, back = jax.vjp(lambda x: decode(private, {name: x})[0][name], features[name])
        return cut(back(scale_rows(by_output[name], factor))[0], name)

    @functools.cache
    def apart() -> bool:
        if rows.meet(lambda features: decode(private, features)[0], features, size) is None:
            return True
        notes.append("what belongs to some rows is pulled from the outputs, as rows may meet behind the features")
        return False

    # --- losses row by row -----------------------------------------------------------------------------------------
    def row_losses() -> tuple[Array, Array]:
        """([K, batch] sums, [K, batch] counts) of the losses row by row."""
        return tuple(map(jnp.stack, zip(*(
            jax.vmap(lambda *row, t=t: loss_sum(t, *jax.tree.map(lambda x: x[None], row)))(
                outputs[t.name], *labels_of(batch, t.name))
            for t in tasks), strict=True)))  # fmt: skip

    def check_rows() -> None:
        for t in tasks:
            y, mask = batch.targets[t.name], batch.masks[t.name]
            if callable(t.loss) and rows.meet(lambda o, t=t, y=y, m=mask: elements(t, o, y, m)[0], outputs[t.name],
                                              len(mask)) == rows.MIXED:  # fmt: skip
                raise ValueError(
                    f"the loss of task {t.name!r} joins rows of the batch, so rows and halves have no losses of their "
                    "own; use objectives='tasks' and a method that reads one sample ('upgrad')"
                )

    def labelled_examples() -> Float[Array, " task"]:
        return (row_losses()[1] > 0).sum(1).astype(losses.dtype)

    size = num_examples(batch, tasks)
    trunk = Trunk(
        names, branches, branched, one_value, cotangents, remade, kept, apart, mode, paths,
        inputs, size, labelled_examples, losses.dtype,
    )  # fmt: skip

    # --- Gramians --------------------------------------------------------------------------------------------------
    one = jnp.ones((), losses.dtype)

    def projections(direction: Gradient) -> Float[Array, "task batch"]:
        """J times a direction, by rows of the batch: a tangent map of trunk and heads."""
        changes = push_heads(jax.tree.map(jnp.zeros_like, private), trunk.push(direction, shared, private))
        return jnp.stack([row_products(cut(by_output[n], n), changes[n]) for n in names])

    def gram(examples: bool = False, unit: Array = one) -> Float[Array, "task task"]:
        if not columns:
            found = trunk.jacobian(examples)
            return gramian(found if unit is one else units.times(found, unit))

        def column(index: Array) -> Array:
            along_rows = projections(trunk.row(index, unit, examples)) * unit
            if examples:
                along_rows = along_rows * labelled_examples()[:, None]
            return global_sum(along_rows.ravel() if examples else along_rows.sum(1))

        found = jax.lax.map(column, jnp.arange(len(names) * (size if examples else 1)))
        return (found + found.T) / 2

    def largest(examples: bool = False) -> Float[Array, " task"]:
        if not columns:
            return units.largest_entries(trunk.jacobian(examples))
        count = len(names) * (size if examples else 1)
        alone = functools.partial(jax.tree.map, lambda x: x[None])
        return jax.lax.map(
            lambda i: units.largest_entries(alone(trunk.row(i, examples=examples)))[0], jnp.arange(count)
        )

    def cross(unit: Array = one) -> tuple[Array, Array]:
        if size % 2:
            raise ValueError(f"two samples are two halves of a batch, and {size} rows cannot be halved; "
                             "use an even batch_size")  # fmt: skip
        check_rows()
        _, by_row = row_losses()
        inside = jnp.arange(size) % 2 == jnp.arange(2)[:, None, None]  # interleaved, as rows may be sorted or sharded
        in_half = global_sum(jnp.where(inside, by_row, 0).sum(-1))
        first, second = jnp.where(inside, (counts / divisor(in_half))[..., None], 0).astype(losses.dtype)
        first, second = first * unit, second * unit
        both = usable & (in_half > 0).all(0)
        if not columns:
            return product(trunk.jacobian(factors=first), trunk.jacobian(factors=second)), both

        def column(index: Array) -> Array:
            return global_sum((projections(trunk.row(index, second)) * first).sum(1))

        return jax.lax.map(column, jnp.arange(len(names))).T, both

    def examples() -> Examples:
        check_rows()
        sums, by_row = row_losses()
        scale = labelled_examples()
        share = scale[:, None] * sums / divisor(counts)[:, None]
        present = (by_row > 0) & usable[:, None]
        return Examples(jnp.where(present, share, 0), present, scale)

    # --- directions ------------------------------------------------------------------------------------------------
    def weighted(weights: Float[Array, "task ..."]) -> Gradient:
        return global_sum(trunk.weighted(weights).shared)

    def at_features() -> Gradient:
        if not one_value:
            raise ValueError("the Jacobian at the features needs features that all heads read; these are per task")
        return trunk.stacked()

    def along(direction: Gradient) -> Gradient:
        return global_sum(trunk.pull(direction).shared)

    ones = jnp.ones(len(names), losses.dtype)

    def own() -> Gradient:
        # Leaves of tasks/* that encode reads are pulled with ones; for the others this part is constant zero.
        read_early = trunk.weighted(ones).private
        total = {p: own_gradient[p] + read_early[p] for p in private}
        return {p: cut(g, partition.owner(p)) for p, g in global_sum(total).items()}

    def extra() -> Gradient:
        total = jax.grad(lambda leaves: model.penalty(with_leaves(leaves)))(chosen)
        if joint:
            total = jax.tree.map(jnp.add, total, joint_gradient())
        if has_aux_losses:
            of_shared, of_private = jax.grad(auxiliary)((shared, private))
            total = jax.tree.map(jnp.add, total, global_sum(of_shared | of_private))
        return total

    def auxiliary(leaves: tuple[Gradient, Gradient]) -> Array:
        """The sum of the auxiliary losses; its own backward pass enters only what they depend on, such as gates."""
        found = [encode(*leaves, subset)[1][2]["losses"] for subset in subsets]
        # A device reports the mean over its own rows; the mean over all is that divided by their number.
        return sum(x for losses in found for x in losses.values()) / num_devices()

    def joint_gradient() -> Gradient:
        targets = {t.name: own_units(t, batch.targets[t.name]) for t in tasks}

        def value(outputs: dict[str, Outputs]) -> Array:
            total = jnp.zeros((), losses.dtype)
            for loss in joint:
                part, count = each(lambda o, f=loss.function: f(o, targets, batch.masks), outputs)
                total = total + loss.weight * part / jnp.maximum(global_sum(count), 1)
            return total

        private_part, by_task = pull_heads(jax.grad(value)(outputs))
        found = trunk.pull(trunk.together(by_task))
        return global_sum(found.shared | {p: private_part[p] + found.private[p] for p in private})

    return Linearization(
        losses, labelled, finite, new_state, metrics, trunk.jacobian, gram, largest, weighted, cross, examples,
        at_features, along, own, extra, notes,
    )  # fmt: skip


def num_examples(batch: Batch, tasks: Sequence[Task]) -> int:
    """Rows of the batch, or of each task's own; halves and examples need the same number for all."""
    return max(len(batch.masks[t.name]) for t in tasks)


def check_mode(mode: str | int) -> None:
    """An error for a mode that is neither one of `MODES` nor a positive number of rows."""
    if mode not in MODES and not (isinstance(mode, int) and mode > 0):
        raise ValueError(f"unknown engine mode {mode!r}; ({', '.join(MODES)}, or how many rows to pull at once)")


__all__ = ["JointLoss", "Linearization", "linearize"]
