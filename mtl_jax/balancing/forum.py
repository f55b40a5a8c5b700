"""FORUM, a first-order multi-gradient algorithm for bilevel problems (Ye et al., ECAI 2024, arXiv:2401.09257)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mtl_jax import parts
from mtl_jax.balancing import learned
from mtl_jax.balancing.arguments import check, check_whole
from mtl_jax.balancing.base import Balancer, Needs, Result, among_present, keep_shares
from mtl_jax.balancing.solvers import project_simplex
from mtl_jax.gradients.gramian import combine, gramian

PROJECTED_STEPS = 200  # of accelerated projected gradient; the problem has one variable per task


class ForumState(NamedTuple):
    """Logits of the training weights, and the moving average of the multipliers of the validation losses."""

    logits: Any
    multipliers: Float[Array, " task"]


def multipliers(
    gram: Float[Array, "task task"],
    along: Float[Array, " task"],
    squared: Array,
    rise: Array,
    mask: Bool[Array, " task"],
) -> tuple[Float[Array, " task"], Float[Array, ""]]:
    """(l on the simplex, v >= 0) with the least |F'l + v q|^2 / 2 - v rise: equation 9 of the paper.

    Args:
      gram: F F', the inner products of the validation gradients.
      along: F q, with q the gradient of the constraint.
      squared: |q|^2.
      rise: how fast the constraint has to fall.
      mask: present tasks.
    """
    gram = jnp.where(mask[:, None] & mask[None, :], gram, 0)
    along = jnp.where(mask, along, 0)
    safe = jnp.where(squared > 0, squared, 1)
    step = 1 / jnp.maximum(jnp.trace(gram), jnp.finfo(gram.dtype).tiny)

    def pressure(mix: Array) -> Array:
        return jnp.where(squared > 0, jnp.maximum((rise - along @ mix) / safe, 0), 0)

    def descend(carry: tuple, k: Array) -> tuple:
        mix, ahead = carry
        slope = gram @ ahead + pressure(ahead) * along
        new = project_simplex(ahead - step * slope, mask).astype(mix.dtype)
        return (new, new + k / (k + 3) * (new - mix)), None

    first = (mask / jnp.maximum(mask.sum(), 1)).astype(gram.dtype)
    (mix, _), _ = jax.lax.scan(descend, (first, first), jnp.arange(PROJECTED_STEPS, dtype=gram.dtype))
    return mix, pressure(mix)


@parts.recorded(
    paper="Ye et al., ECAI 2024, arXiv:2401.09257",
    when="the same as a constrained problem; also trains on validation data",
)
def forum(
    learning_rate: float = 1e-3, inner_rate: float = 0.01, inner_steps: int = 5, rho: float = 0.1, average: float = 0.9
) -> Balancer:
    """Validation losses are minimised over weights and model, under the constraint that the model minimises the
    weighted training loss.

    The constraint q = f(w, theta) - f(w, theta') <= 0 compares with theta', `inner_steps` of gradient descent ahead.
    The step follows sum_t l_t grad V_t + v grad q for trunk and heads, with the multipliers of the shortest such vector
    along which q falls at least by rho |grad q|^2 / 2.

    Args:
      learning_rate: of Adam on the weights' logits; weights are K softmax(logits).
      inner_rate, inner_steps: of the virtual descent.
      rho: how strongly the constraint is to fall.
      average: share of the old multipliers in their moving average.
    """
    check_whole("forum", 1, inner_steps=inner_steps)
    check("forum", "above 0", learning_rate=learning_rate, inner_rate=inner_rate)
    check("forum", "at least 0", rho=rho)
    check("forum", "in [0, 1)", average=average)
    adam = optax.adam(learning_rate)

    def init(num_tasks, template):
        return ForumState(learned.start(num_tasks, 0.0, adam), jnp.full((num_tasks,), 1 / num_tasks))

    def update(signal, state, *, mask, key):
        oracle, leaves = signal.oracle, signal.oracle.leaves
        dtype = signal.losses.dtype

        def weights_of(logits):
            share = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), where=mask)
            return jnp.where(mask, mask.sum() * share, 0).astype(dtype)

        weights = weights_of(state.logits.value)

        def descend(theta, _):
            slope = oracle.train.gradient(theta, weights)
            return jax.tree.map(lambda x, g: x - inner_rate * g.astype(x.dtype), theta, slope), None

        ahead, _ = jax.lax.scan(descend, leaves, length=inner_steps)
        fall = jnp.where(mask, oracle.train.value(leaves) - oracle.train.value(ahead), 0)
        to_logits = jax.grad(lambda s: (weights_of(s) @ fall).astype(jnp.float32))(state.logits.value)
        to_leaves = oracle.train.gradient(leaves, weights)
        rows = jax.lax.map(lambda one: oracle.validation.gradient(leaves, one), jnp.eye(len(mask), dtype=dtype))
        # The multipliers do not depend on a common unit; in that of the largest entry no product overflows or vanishes.
        largest = jnp.stack([jnp.abs(x).max() for x in jax.tree.leaves((rows, to_leaves, to_logits))]).max()
        inverse = 1 / jnp.where(largest > 0, largest, 1)
        small, q, q_logits = jax.tree.map(lambda x: x * inverse.astype(x.dtype), (rows, to_leaves, to_logits))
        along = sum(
            jnp.tensordot(small[p].reshape(len(mask), -1), g.ravel(), 1, precision="highest") for p, g in q.items()
        )
        squared = sum((g * g).sum() for g in q.values()) + (q_logits**2).sum()
        fresh, _ = multipliers(gramian(small), along, squared, rho / 2 * squared, mask)
        share, held = among_present(state.multipliers, mask)
        used = (average * share + (1 - average) * fresh).astype(dtype)
        kept = keep_shares(state.multipliers, used, held, mask)
        pressure = jnp.maximum((rho / 2 * squared - along @ used) / jnp.where(squared > 0, squared, 1), 0)
        direction = jax.tree.map(lambda f, q: f + pressure * q, combine(used, rows), to_leaves)
        logits = learned.descend(state.logits, pressure * to_logits, adam, mask)
        return Result(direction=direction), ForumState(logits, kept)

    return Balancer(init, update, Needs.ORACLE, directs=True)
