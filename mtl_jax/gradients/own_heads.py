"""Heads of one's own after common features, linearised: heads run forward and backward once, and from there on only
what comes back at the features is pulled through the trunk, row by row."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtl_jax import partition
from mtl_jax.gradients import over_devices
from mtl_jax.gradients.finite import all_finite
from mtl_jax.gradients.gramian import combine
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.gradients.own_losses import OwnLosses
from mtl_jax.gradients.own_vjps import Vjps, Where, cut, usable_in
from mtl_jax.gradients.reach import reached
from mtl_jax.gradients.vjps import floats, over_rows, with_transpose


def of_heads(form: OwnLosses, where: Where) -> Vjps:
    """Heads after common features: heads forward and backward once, then the features' cotangents row by row."""
    columns = where.mode == "columns"

    def encode(leaves: Gradient) -> tuple[Gradient, tuple[Any, Any]]:
        whole, aux = form.encoded(where.tree(leaves), where.batch)
        return floats(whole), (whole, aux)

    features, pull_trunk, push_trunk, (whole, of_trunk) = with_transpose(encode, columns, where.leaves)
    if not features:
        raise ValueError("features have no floating-point leaf, so no gradient comes back through them")

    def head(function: Callable) -> tuple:
        """Linearised by the features and by the leaves that it reads itself."""

        def at(own: Gradient, features: Gradient) -> Any:
            return function(where.tree(where.leaves | own), partition.unflatten(features, whole))

        reads = reached(lambda own, x: at(own, x)[0], where.leaves, features)[0]
        return with_transpose(at, columns, {p: x for p, x in where.leaves.items() if reads[p]}, features)

    if form.apart:
        batches = form.batches(where.batch)
        heads = [head(lambda p, x, n=n: form.one(n, p, x, batches[n])) for n in batches]
        losses, mask = (jnp.stack(x) for x in zip(*((v, m) for v, _, _, (m, _) in heads), strict=True))
        pulled = [back(where.vary(jnp.ones((), v.dtype))) for v, back, *_ in heads]
        of_own = dict(zip(batches, [a for *_, (_, a) in heads], strict=True))
        cotangents = jax.tree.map(lambda *x: jnp.stack(x), *(c for _, c in pulled))
        own = [o for o, _ in pulled]
    else:

        def function(params: Any, features: Any) -> tuple[Array, tuple[Array, Any]]:
            values = form.all(params, features, where.batch)[1]
            return values.losses, (values.mask, values.aux)

        losses, back, forth, (mask, of_own) = head(function)
        stacked, cotangents = jax.vmap(back)(where.vary(jnp.eye(len(losses), dtype=losses.dtype)))
        own = [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(len(losses))]
    count = len(losses)
    losses, labelled, finite = usable_in(where, losses, mask)
    if where.look:
        fine = jnp.stack([all_finite((own[i], jax.tree.map(lambda x, i=i: x[i], cotangents))) for i in range(count)])
        finite &= over_devices.everywhere(fine, where.axis_name)
    usable = labelled & finite
    cotangents = cut(usable, cotangents)
    own = [cut(usable[i], o) for i, o in enumerate(own)]
    tied = sorted({p for o in own for p in o if p in where.shared})  # shared leaves that heads read themselves
    tied_rows = {p: jnp.stack([o.get(p, jnp.zeros_like(where.leaves[p])) for o in own]) for p in tied}

    def pull(seed: tuple[Gradient, Gradient], factor: Any = 1) -> Gradient:
        found = where.only_shared(pull_trunk(seed[0])[0])
        found = found | {p: found[p] + x for p, x in seed[1].items()}
        return jax.tree.map(lambda x: x * jnp.asarray(factor, x.dtype), where.mean(found))

    seeds = (cotangents, tied_rows)

    def row(index: Array, factor: Any = 1) -> Gradient:
        return pull(jax.tree.map(lambda x: x[index], seeds), factor)

    def mix(weights: Array) -> Gradient:
        found = pull_trunk(where.vary(combine(weights, cotangents)))[0]
        for i, gradient in enumerate(own):
            found = found | {p: found[p] + weights[i].astype(g.dtype) * g for p, g in gradient.items()}
        return where.mean(found)

    def push(direction: Gradient) -> Array:
        moved = where.both(direction)
        ahead = push_trunk(moved)
        if form.apart:
            slopes = [forth({p: moved[p] for p in o}, ahead) for (_, _, forth, _), o in zip(heads, own, strict=True)]
            return jnp.where(usable, where.mean(jnp.stack(slopes)), 0)
        return jnp.where(usable, where.mean(forth({p: moved[p] for p in own[0]}, ahead)), 0)

    def at_features() -> Gradient:
        if tied:
            raise ValueError(f"level='features' balances by the features alone, and heads read the shared {tied[0]!r} "
                             "themselves; use level='parameters', or leave it out of shared")  # fmt: skip
        return jax.tree.map(lambda x: x / share, cotangents)

    def along(direction: Gradient) -> Gradient:
        found = where.only_shared(pull_trunk(where.vary(direction))[0])
        return found if where.axis_name is None else jax.lax.psum(found, where.axis_name)

    share = 1 if where.axis_name is None else jax.lax.axis_size(where.axis_name)
    return Vjps(
        losses, labelled, finite, form.joined_aux(of_trunk, of_own), row,
        lambda: over_rows(pull, seeds, where.mode), mix, push if columns else None,
        at_features, along,
    )  # fmt: skip
