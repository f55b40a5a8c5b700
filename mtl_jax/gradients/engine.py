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
from mtl_jax import stacked_model as stacked
from mtl_jax.alike import layout_of
from mtl_jax.batch import Batch, PerTask, aligned
from mtl_jax.gradients import dense_factors, rows, units
from mtl_jax.gradients.finite import finite_each
from mtl_jax.gradients.gramian import gramian, product
from mtl_jax.gradients.linearization import MODES, Examples, Gradient, JointLoss, Linearization
from mtl_jax.gradients.trunk import Branch, Trunk
from mtl_jax.gradients.vjps import floats, row_products, scale_rows, with_transpose
from mtl_jax.members import Outputs, each
from mtl_jax.model import MultiTaskModel, merge
from mtl_jax.parallel import data_axis, global_sum, local_key, num_devices
from mtl_jax.scaler import own_units
from mtl_jax.stacked_model import branched
from mtl_jax.stacking import Layout, task_losses
from mtl_jax.tasks import Task, divisor, elements, loss_sum


def linearize(
    model: MultiTaskModel,
    variables: Any,
    batch: Batch,
    *,
    tasks: Sequence[Task] | None = None,
    trainable: frozenset[str] | None = None,
    **arguments: Any,
) -> Linearization:
    """`linearize_stacked` for variables and a batch with an entry per task.

    Args:
      model, variables, batch: what to differentiate, and where.
      tasks: the model's tasks with their scalers, if the model's own lack them.
      trainable: paths of the leaves to differentiate by; None for all.
      arguments: the others of `linearize_stacked`.
    """
    check_mode(arguments.get("mode", "map"))
    layout = layout_of(model, tuple(tasks or model.tasks), variables, batch, trainable=trainable)
    line = linearize_stacked(
        model, layout, layout.stack_variables(variables), layout.stack_batch(batch), trainable=trainable, **arguments
    )
    state = {**line.state, "tasks": layout.unstack(line.state["tasks"])}
    return line._replace(
        state=state, own=lambda: layout.unstack_paths(line.own()), extra=lambda: layout.unstack_paths(line.extra())
    )


def linearize_stacked(
    model: MultiTaskModel,
    layout: Layout,
    variables: Any,
    batch: Batch,
    *,
    rng: Any = None,
    train: Any = True,
    trainable: frozenset[str] | None = None,
    mode: str | int = "map",
    paths: frozenset[str] | None = None,
    joint: Sequence[JointLoss] = (),
    check_heads: bool = True,
    rows_wanted: bool = True,
) -> Linearization:
    """Runs the model once and offers the gradients of its K losses.

    Args:
      model: what to differentiate.
      layout: how its tasks lie.
      variables, batch: stacked.
      rng: key of the pass.
      train: bool, or a function of paths (see `MultiTaskModel`).
      trainable: paths of the leaves to differentiate by; None for all.
      mode: how the Jacobian's rows are pulled: "map" one by one, "vmap" at once, an integer that many at once;
        "layers": one by one, and of dense layers wider than the batch only the factors (`layers`); or "columns": the
        Gramian as J (J^T e_j) without ever holding J, one tangent map after one pull per task. Rows of tasks with
        branches of their own are pulled together, group by group.
      paths: of the shared leaves that `jacobian`, `gramian` and `cross` are about; None for all.
      joint: losses over several tasks' outputs.
      check_heads: whether a task counts as finite only if what comes back from it through its head is, too.
      rows_wanted: whether rows of the Jacobian will be asked for, and not only weighted sums, which alone are cheaper.
    """
    check_mode(mode)
    names = layout.names
    rng = None if rng is None else local_key(rng)
    flat = partition.flatten(variables["params"])
    chosen = {p: v for p, v in flat.items() if trainable is None or p in trainable}
    shared = {p: v for p, v in chosen.items() if partition.owner(p) == "shared"}
    private = {p: v for p, v in chosen.items() if partition.owner(p) != "shared"}
    columns = mode == "columns"
    rows_wanted = rows_wanted or check_heads

    def with_leaves(*leaves: Gradient) -> Any:
        updated = {p: v for part in leaves for p, v in part.items()}
        return {**variables, "params": partition.unflatten(updated, variables["params"])}

    # --- forward through the trunk -------------------------------------------------------------------------------
    apart_by_task = branched(model, batch)
    copies = apart_by_task and rows_wanted and not columns  # of the trunk, so that a pull gives the row of each task

    def encode(shared: Gradient, private: Gradient, first: str | None) -> tuple[Any, Any]:
        if first is None:
            whole, new_state, aux = stacked.encode(
                model, layout, with_leaves(shared, private), batch, train=train, rng=rng
            )
            several = isinstance(whole, PerTask)
            features = {n: floats(x) for n, x in whole.items()} if several else floats(whole)
            return features, (whole, new_state, aux)
        own = {p: x for p, x in private.items() if partition.owner(p) == first}
        found, new_state, aux = stacked.encode_group(
            model, layout, first, variables, batch, shared, own, train=train, rng=rng, copies=copies
        )
        return {first: floats(found)}, (PerTask({first: found}), new_state, aux)

    opened, notes = None, []
    if mode == "layers":
        kernels = [p for p, x in shared.items() if x.ndim == 2 and (paths is None or p in paths)]
        if apart_by_task or data_axis():
            notes.append(dense_factors.nothing("every task has a branch of its own" if apart_by_task else "under pmap"))
        else:
            opened = dense_factors.take_apart(lambda s, p: encode(s, p, None), kernels, len(names), shared, private)
            if not opened.zeros:
                notes.append(dense_factors.nothing(opened.left))

    def run(shared: Gradient, private: Gradient, added: Gradient, first: str | None) -> tuple[Any, Any]:
        """`encode`, with zeros added to the outputs of factored layers: a pull to those is the layers' cotangents."""
        if opened is None:
            (features, aux), inputs = encode(shared, private, first), {}
        else:
            (features, aux), inputs = opened.run(shared, private, added)
        return features, (inputs, *aux)

    branches, whole, features, new_state, metrics, has_aux_losses = [], {}, {}, {}, {}, False
    subsets = list(layout.groups) if apart_by_task else [None]
    for first in subsets:
        entering = shared
        if copies:
            entering = layout.copies(first, shared)
        found, pull, push, (inputs, value, changed, aux) = with_transpose(
            lambda s, p, a, first=first: run(s, p, a, first), columns, entering, private, opened.zeros if opened else {}
        )
        branches.append(Branch((first,) if apart_by_task else tuple(layout.groups), pull, push, copies))
        one_value = not isinstance(value, PerTask)
        whole |= dict.fromkeys(layout.groups, value) if one_value else dict(value)
        features |= dict.fromkeys(layout.groups, found) if one_value else found
        new_state, metrics = merge(new_state, changed), metrics | aux["metrics"]
        has_aux_losses |= bool(aux["losses"])

    kept = rows_wanted and not (columns and one_value)  # whether the cotangents are; else each is made anew
    in_common = one_value and not kept

    # --- heads: one forward, one backward of the summed losses -----------------------------------------------------
    def decode(private: Gradient, features: dict[str, Gradient]) -> tuple[dict[str, Outputs], Any]:
        read = {}
        for first, x in features.items():
            rest = whole[first]
            if one_value and kept:  # a copy of the features for each task, so that a pull gives the cotangent of each
                rest = layout.copies(first, rest)
            read[first] = partition.unflatten(x, rest)
        return stacked.decode(model, layout, with_leaves(private), read, train=train, rng=rng, in_common=in_common)

    def copied(by_group: dict[str, Gradient]) -> dict[str, Gradient]:
        if not (one_value and kept):
            return by_group
        return {first: layout.copies(first, x) for first, x in by_group.items()}

    outputs, pull_heads, push_heads, decoded = with_transpose(decode, columns, private, copied(features))
    new_state = merge(merge(variables["state"], new_state), decoded)

    def mean_losses(outputs: dict[str, Outputs]) -> tuple[Array, tuple[Array, Array]]:
        sums, counts = task_losses(layout, outputs, batch)
        local = sums / divisor(counts)
        return local.sum(), (local, counts)

    by_output, (local, counts) = jax.grad(mean_losses, has_aux=True)(outputs)
    losses = global_sum(local)
    own_gradient, cotangents = pull_heads(by_output)
    finite = jnp.isfinite(losses)
    if check_heads:
        of_head = {first: {} for first in layout.groups}
        for p, g in own_gradient.items():
            of_head[partition.owner(p)][p] = g
        broken = {
            first: ~finite_each((by_output[first], cotangents[first] if kept else (), of_head[first]))
            for first in layout.groups
        }
        finite &= global_sum(layout.join(broken).astype(jnp.int32)) == 0
    labelled = counts > 0
    usable = labelled & finite

    def cut(tree: Any, first: str, index: Array | None = None) -> Any:
        # 0 * nan is nan: a task is cut off by selection, not by its weight.
        there = layout.part(usable, first)
        there = there if index is None else there[index]
        return jax.tree.map(lambda x: jnp.where(aligned(there, x), x, 0), tree)

    by_output = {first: cut(x, first) for first, x in by_output.items()}
    if kept:
        cotangents = {first: cut(x, first) for first, x in cotangents.items()}

    def remade(first: str, index: Array, factor: Array) -> Gradient:
        # Rows are taken apart at the output, where they belong to the loss, whatever the head does with them.
        def take(tree: Any) -> Any:
            return jax.tree.map(lambda x: x[index], tree)

        now = with_leaves(private)
        weights, state = (take(now[k]["tasks"].get(first, {})) for k in ("params", "state"))
        rest, at = (whole[first], features[first]) if one_value else take((whole[first], features[first]))

        def head(x: Gradient) -> Any:
            return stacked.decode_one(
                model, layout, first, now, weights, state, partition.unflatten(x, rest), index, train=train, rng=rng
            )[0]

        _, back = jax.vjp(head, at)
        return cut(back(scale_rows(take(by_output[first]), factor))[0], first, index)

    def summed(weights: Float[Array, "task ..."]) -> Any:
        """The cotangents times weights, pulled through the heads at once: summed where all heads read one value."""
        scaled = {first: jax.vmap(scale_rows)(x, layout.part(weights, first)) for first, x in by_output.items()}
        return trunk.together(pull_heads(scaled)[1])

    @functools.cache
    def apart() -> bool:
        for first in layout.groups:
            now, at = with_leaves(private), features[first]
            weights, state = (jax.tree.map(lambda x: x[0], now[k]["tasks"].get(first, {})) for k in ("params", "state"))
            rest = whole[first]
            if not one_value:
                rest, at = jax.tree.map(lambda x: x[0], (rest, at))

            def head(x: Gradient, first=first, now=now, weights=weights, state=state, rest=rest) -> Any:
                x, one = partition.unflatten(x, rest), jnp.zeros((), jnp.int32)
                return stacked.decode_one(model, layout, first, now, weights, state, x, one, train=train, rng=rng)[0]

            if rows.meet(head, at, size) is not None:
                notes.append(
                    "what belongs to some rows is pulled from the outputs, as rows may meet after the features"
                )
                return False
        return True

    # --- losses row by row -----------------------------------------------------------------------------------------
    def row_losses() -> tuple[Array, Array]:
        """([K, batch] sums, [K, batch] counts) of the losses row by row."""

        def of_rows(task: Task, *row: Any) -> Any:
            return jax.vmap(lambda *one: loss_sum(task, *jax.tree.map(lambda x: x[None], one)))(*row)

        return layout.join(layout.each(of_rows, outputs, batch.targets, batch.masks, batch.weights))

    def check_rows() -> None:
        for first in layout.groups:
            t = layout.group_tasks(first)[0]
            y, mask, o = jax.tree.map(lambda x: x[0], (batch.targets[first], batch.masks[first], outputs[first]))
            if callable(t.loss) and rows.meet(lambda o, t=t, y=y, m=mask: elements(t, o, y, m)[0], o,
                                              len(mask)) == rows.MIXED:  # fmt: skip
                raise ValueError(
                    f"the loss of task {t.name!r} joins rows of the batch, so rows and halves have no losses of their "
                    "own; use objectives='tasks' and a method that reads one sample ('upgrad')"
                )

    def labelled_examples() -> Float[Array, " task"]:
        return (row_losses()[1] > 0).sum(1).astype(losses.dtype)

    def through(first: str, index: Array, factor: Array) -> Gradient:
        """One row by a pass of its own: that of a task with a branch of its own, whose index is traced."""
        own = {p: x for p, x in private.items() if partition.owner(p) == first}
        mine = jax.tree.map(lambda x: x[index], stacked.own_of(first, variables, batch, own))

        def features_of(shared: Gradient) -> Gradient:
            x, *_ = stacked.encode_one(
                model, layout, first, variables, batch, shared, mine, index, train=train, rng=rng
            )
            return floats(x)

        _, back = jax.vjp(features_of, shared)
        return back(trunk.one(first, index, factor))[0]

    size = num_examples(batch)
    trunk = Trunk(
        layout, branches, apart_by_task, one_value, cotangents if kept else features, remade, summed, through, kept,
        apart, mode, paths, inputs, size, labelled_examples, losses.dtype,
    )  # fmt: skip

    # --- Gramians --------------------------------------------------------------------------------------------------
    one = jnp.ones((), losses.dtype)

    def projections(direction: Gradient) -> Float[Array, "task batch"]:
        """J times a direction, by rows of the batch: a tangent map of trunk and heads."""
        moved = copied(trunk.push(direction, shared, private))
        changes = push_heads(jax.tree.map(jnp.zeros_like, private), moved)
        return layout.join({first: jax.vmap(row_products)(by_output[first], changes[first]) for first in changes})

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
        total = jax.grad(lambda leaves: model.penalty(layout.view_variables(with_leaves(leaves))))(chosen)
        if joint:
            total = jax.tree.map(jnp.add, total, joint_gradient())
        if has_aux_losses:
            of_shared, of_private = jax.grad(auxiliary)((shared, private))
            total = jax.tree.map(jnp.add, total, global_sum(of_shared | of_private))
        return total

    def auxiliary(leaves: tuple[Gradient, Gradient]) -> Array:
        """The sum of the auxiliary losses; its own backward pass enters only what they depend on, such as gates."""
        of_shared, of_private = leaves

        def of_branch(first: str | None) -> dict[str, Array]:
            entering = layout.copies(first, of_shared) if copies else of_shared
            return encode(entering, of_private, first)[1][2]["losses"]

        found = [of_branch(first) for first in subsets]
        # A device reports the mean over its own rows; the mean over all is that divided by their number.
        return sum(x for losses in found for x in losses.values()) / num_devices()

    def joint_gradient() -> Gradient:
        labels = layout.unstack(batch.targets)
        targets = {t.name: own_units(t, labels[t.name]) for t in layout.tasks}
        masks = layout.unstack(batch.masks)

        def value(outputs: dict[str, Outputs]) -> Array:
            total = jnp.zeros((), losses.dtype)
            for loss in joint:
                part, count = each(lambda o, f=loss.function: f(o, targets, masks), layout.unstack(outputs))
                total = total + loss.weight * part / jnp.maximum(global_sum(count), 1)
            return total

        private_part, by_group = pull_heads(jax.grad(value)(outputs))
        found = trunk.pull(trunk.together(by_group))
        return global_sum(found.shared | {p: private_part[p] + found.private[p] for p in private})

    return Linearization(
        losses, labelled, finite, new_state, metrics, trunk.jacobian, gram, largest, weighted, cross, examples,
        at_features, along, own, extra, notes,
    )  # fmt: skip


def num_examples(batch: Batch) -> int:
    """Rows of a stacked batch, or of each task's own; halves and examples need the same number for all."""
    return max(mask.shape[1] for mask in batch.masks.values())


def check_mode(mode: str | int) -> None:
    """An error for a mode that is neither one of `MODES` nor a positive number of rows."""
    if mode not in MODES and not (isinstance(mode, int) and mode > 0):
        raise ValueError(f"unknown engine mode {mode!r}; ({', '.join(MODES)}, or how many rows to pull at once)")


__all__ = ["JointLoss", "Linearization", "linearize", "linearize_stacked"]
