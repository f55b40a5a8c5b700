"""FAMO, fast adaptive multitask optimization (Liu et al., NeurIPS 2023, arXiv:2306.03792)."""

import jax
import jax.numpy as jnp
import optax

from mtl_jax import parts
from mtl_jax.balancing import learned
from mtl_jax.balancing.base import Balancer, Needs, Result


@parts.recorded()
def famo(learning_rate: float = 0.025, weight_decay: float = 1e-3) -> Balancer:
    """Decreases all losses at about the same relative rate, with weights adapted from how they fell.

    Weights are z_t / L_t over their sum, z = softmax(xi). After the step the losses of the same batch are computed
    again, and xi descends on sum_t z_t (log L_t before - log L_t after): a task that fell fast loses weight.

    Args:
      learning_rate: of Adam on xi.
      weight_decay: added to xi's gradient, as L2.
    """
    adam = optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate))

    def share(logits, mask):
        return jnp.where(mask, jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), where=mask), 0)

    def init(num_tasks, template):
        return learned.start(num_tasks, 0.0, adam)

    def update(signal, state, *, mask, key):
        parts_of_one = share(state.value, mask) / jnp.maximum(signal.losses, 1e-8)
        total = parts_of_one.sum()
        weights = (parts_of_one / jnp.where(total > 0, total, 1)).astype(signal.losses.dtype)
        return Result(weights, head_weights=weights), state

    def after(before, later, state, mask):
        fall = jnp.log(jnp.maximum(before, 1e-8)) - jnp.log(jnp.maximum(later, 1e-8))
        usable = mask & jnp.isfinite(fall)
        fall = jnp.where(usable, fall, 0).astype(jnp.float32)
        slope = jax.grad(lambda logits: (share(logits, mask) * fall).sum())(state.value)
        return learned.descend(state, slope, adam, usable)

    return Balancer(init, update, Needs.LOSSES, after)
