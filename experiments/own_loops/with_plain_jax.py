"""A loop of one's own in plain JAX: parameters in dicts, a trunk and three heads, IMTL-G, Adam.

    python -m experiments.own_loops.with_plain_jax

prints what each task leaves unexplained on new rows (1 is the best constant): mean 0.005, spread 0.004, trend 0.013.
"""

import jax
import jax.numpy as jnp
import optax

import mtl_jax as mtl
from experiments.own_loops.problem import TASKS, rows, unexplained


def init(key):
    keys = jax.random.split(key, 2 + len(TASKS))
    trunk = {"in": jax.random.normal(keys[0], (6, 32)) / 6**0.5, "out": jax.random.normal(keys[1], (32, 32)) / 32**0.5}
    return {
        "trunk": trunk,
        "heads": {t: jax.random.normal(k, (32,)) / 32 for t, k in zip(TASKS, keys[2:], strict=True)},
    }


def features(params, batch):
    return jax.nn.gelu(jax.nn.gelu(batch[0] @ params["trunk"]["in"]) @ params["trunk"]["out"])


def head(task):
    return lambda params, features, batch: jnp.square(features @ params["heads"][task] - batch[1][task]).mean()


def main(num_steps: int = 1000) -> dict[str, float]:
    """Trains, and returns {task: unexplained variance of new rows}."""
    params, tx = init(jax.random.key(0)), optax.adam(optax.cosine_decay_schedule(1e-2, num_steps))
    balanced = mtl.balanced(None, mtl.balancing.imtl_g(), features=features, heads={t: head(t) for t in TASKS},
                            shared="trunk/.*")  # fmt: skip

    @jax.jit
    def step(carry, batch):
        params, state, opt_state = carry
        grads, state, info = balanced(params, state, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), info

    carry = params, balanced.init(params), tx.init(params)
    for i in range(num_steps):
        carry, info = step(carry, rows(1 + i))
    x, targets = rows(10**6)
    found = features(carry[0], (x, None))
    return unexplained({t: found @ carry[0]["heads"][t] for t in TASKS}, targets)


if __name__ == "__main__":
    print(", ".join(f"{t} {v:.3f}" for t, v in main().items()))
