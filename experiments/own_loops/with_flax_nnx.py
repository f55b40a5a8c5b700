"""A loop of one's own in Flax NNX: parameters split off with their filter, batch statistics that come along as aux.

    python -m experiments.own_loops.with_flax_nnx

prints what each task leaves unexplained on new rows (1 is the best constant): mean 0.013, spread 0.003, trend 0.043.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import mtl_jax as mtl
from experiments.own_loops.problem import TASKS, rows, unexplained


class Model(nnx.Module):
    """A trunk with batch normalisation, and a linear head per task."""

    def __init__(self, rngs: nnx.Rngs):
        self.first, self.second = nnx.Linear(6, 32, rngs=rngs), nnx.Linear(32, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.heads = nnx.Dict({t: nnx.Linear(32, 1, kernel_init=nnx.initializers.zeros, rngs=rngs) for t in TASKS})

    def __call__(self, x):
        features = nnx.gelu(self.second(nnx.gelu(self.norm(self.first(x)))))
        return {t: head(features)[:, 0] for t, head in self.heads.items()}


def main(num_steps: int = 1000) -> dict[str, float]:
    """Trains, and returns {task: unexplained variance of new rows}."""
    graph, params, statistics = nnx.split(Model(nnx.Rngs(0)), nnx.Param, ...)
    tx = optax.adam(optax.cosine_decay_schedule(1e-2, num_steps))

    def losses(params, batch):
        x, targets, statistics = batch
        model = nnx.merge(graph, params, statistics, copy=True)
        outputs = model(x)
        return {t: jnp.square(outputs[t] - targets[t]).mean() for t in TASKS}, nnx.state(model, nnx.BatchStat)

    balanced = mtl.balanced(losses, mtl.balancing.upgrad(), shared="(first|second|norm)/.*", has_aux=True)

    @jax.jit
    def step(carry, batch):
        params, statistics, state, opt_state = carry
        grads, state, info = balanced(params, state, (*batch, statistics))
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), info.aux, state, opt_state), info

    carry = params, statistics, balanced.init(params), tx.init(params)
    for i in range(num_steps):
        carry, info = step(carry, rows(1 + i))
    model = nnx.merge(graph, carry[0], carry[1])
    model.eval()
    x, targets = rows(10**6)
    return unexplained(model(x), targets)


if __name__ == "__main__":
    print(", ".join(f"{t} {v:.3f}" for t, v in main().items()))
