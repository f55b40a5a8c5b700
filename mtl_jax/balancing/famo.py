"""FAMO, fast adaptive multitask optimization (Liu et al., NeurIPS 2023, arXiv:2306.03792)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from mtl_jax import parts
from mtl_jax.balancing import learned
from mtl_jax.balancing.arguments import check, numbers
from mtl_jax.balancing.base import Balancer, Needs, Result, defined, one_per_task


@parts.recorded(
    paper="Liu et al., NeurIPS 2023, arXiv:2306.03792",
    when="even relative progress with many tasks, at two forward passes",
)
def famo(
    learning_rate: float = 0.025, weight_decay: float = 1e-3, min_losses: Sequence[float] | None = None
) -> Balancer:
    """Decreases all losses at about the same relative rate, with weights adapted from how they fell.

    Weights are z_t / (L_t - b_t) over their sum, z = softmax(xi). After the step the losses of the same batch are
    computed again, and xi descends on sum_t z_t (log (L_t - b_t) before - the same after): a task that fell fast loses
    weight. Differences L_t - b_t under 1e-8 count as that much; below 0 weights are nan.

    Args:
      learning_rate: of Adam on xi.
      weight_decay: added to xi's gradient, as L2.
      min_losses: b, what each loss is at least, one per task; None for zeros.
    """
    check("famo", "above 0", learning_rate=learning_rate)
    check("famo", "at least 0", weight_decay=weight_decay)
    min_losses = numbers("famo", "min_losses", min_losses)
    adam = optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate))

    def share(logits, mask):
        return jnp.where(mask, jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), where=mask), 0)

    def above(losses):
        return jnp.maximum(losses - lowest(losses.dtype), 1e-8)

    def lowest(dtype):
        return jnp.asarray(0 if min_losses is None else min_losses, dtype)

    def init(num_tasks, template):
        one_per_task("famo", "entries of min_losses", min_losses, num_tasks)
        return learned.start(num_tasks, 0.0, adam)

    def update(signal, state, *, mask, key):
        parts_of_one = share(state.value, mask) / above(signal.losses)
        total = parts_of_one.sum()
        weights = defined(
            parts_of_one / jnp.where(total > 0, total, 1), signal.losses, mask, lowest(signal.losses.dtype)
        )
        weights = weights.astype(signal.losses.dtype)
        return Result(weights, head_weights=weights), state

    def after(before, later, state, mask):
        fall = jnp.log(above(before)) - jnp.log(above(later))
        usable = mask & jnp.isfinite(fall)
        fall = jnp.where(usable, fall, 0).astype(jnp.float32)
        slope = jax.grad(lambda logits: (share(logits, mask) * fall).sum())(state.value)
        return learned.descend(state, slope, adam, usable)

    return Balancer(init, update, Needs.LOSSES, after, simplex=True, positive=min_losses is None)
