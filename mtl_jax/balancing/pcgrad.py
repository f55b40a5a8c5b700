"""PCGrad, gradient surgery by projecting conflicting gradients (Yu et al., NeurIPS 2020, arXiv:2001.06782)."""

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, draws, stateless
from mtl_jax.gradients.gramian import pairs


def pair_draws(key, ids):
    """[K, K], a uniform draw per ordered pair from the ids of both: an absent task leaves the others' order alone."""
    return jax.vmap(lambda own: jax.vmap(jax.random.uniform)(draws(own, ids)))(draws(key, ids))


@parts.recorded(
    paper="Yu et al., NeurIPS 2020, arXiv:2001.06782",
    when="conflict between few tasks; simple, random order",
)
def pcgrad() -> Balancer:
    """Each task's gradient loses, in random order, its negative projections on the other tasks' gradients; the sum.

    Works on the Gramian: c_i are the coefficients of task i's gradient in the rows, so that a conflict with task j is
    (G c_i)_j < 0 and its removal is c_ij -= (G c_i)_j / G_jj. Whole gradients are projected, never leaf by leaf.
    """

    def update(signal, state, *, mask, key):
        gram = jnp.where(pairs(mask), signal.gramian, 0)
        count = len(mask)
        squared = jnp.diagonal(gram)
        by_pair = pair_draws(key, signal.ids)
        inverse = jnp.where(squared > 0, 1 / jnp.where(squared > 0, squared, 1), 0)

        def surgery(task):
            order = jnp.argsort(by_pair[task])

            def project(i, coefficients):
                other = order[i]
                overlap = gram[other] @ coefficients
                removed = jnp.where((other != task) & (overlap < 0), overlap * inverse[other], 0)
                return coefficients.at[other].add(-removed)

            return jax.lax.fori_loop(0, count, project, jax.nn.one_hot(task, count, dtype=gram.dtype))

        coefficients = jax.vmap(surgery)(jnp.arange(count))
        return Result(jnp.where(mask, jnp.where(mask[:, None], coefficients, 0).sum(0), 0)), state

    return Balancer(stateless, update, Needs.GRAMIAN, unit_free=True)
