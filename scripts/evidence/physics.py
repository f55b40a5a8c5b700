"""Does balancing help a physics-informed network? The Helmholtz equation with a known solution, four ways to weigh it.

    python -m scripts.evidence.physics [--steps 10000] [--seeds 3]

u_xx + u_yy + u = q on [-1, 1]^2 with u = 0 on the boundary, and q such that u = sin(pi x) sin(2 pi y) (after Wang, Teng
and Perdikaris, SIAM J. Sci. Comput. 2021, arXiv:2001.04536, section 3, who have 4 pi). An MLP 2-32-32-32-1 with tanh
learns it from two losses with points of their own at every step: the equation's residual at 128 points inside, and u at
64 points of the boundary. Adam, from 3e-3 down to 3e-5 exponentially. Each method is one line,
``mtl.balanced({"residual": ..., "boundary": ...}, method)``; nothing else differs. The floor is u = 0. The error is
|u - u*| / |u*| on a 101 x 101 grid, mean over seeds with the standard deviation between them; milliseconds are those of
a step in a compiled scan over all steps, seeds one after the other.
"""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_jax as mtl
from mtl_jax.reporting.describe import table

METHODS = {
    "equal": "equal",
    "GradNorm": "gradnorm",
    "ConFIG": "conflict_free",
    "UPGrad": "upgrad",
}
PI = np.pi


def exact(x: Any) -> Any:
    """The solution at a point [2]."""
    return jnp.sin(PI * x[0]) * jnp.sin(2 * PI * x[1])


def source(x: Any) -> Any:
    """What the equation has on its right."""
    return (1 - PI**2 - (2 * PI) ** 2) * exact(x)


def init(key: Any, widths: tuple[int, ...] = (2, 32, 32, 32, 1)) -> list[dict[str, Any]]:
    """Glorot's."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        {"w": jax.random.normal(k, (a, b)) * (2 / (a + b)) ** 0.5, "b": jnp.zeros(b)}
        for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def network(params: Any, x: Any) -> Any:
    """u at a point [2]."""
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return (x @ params[-1]["w"] + params[-1]["b"])[0]


def residual(params: Any, points: Any) -> Any:
    """The mean square of what the equation leaves."""

    def at(x: Any) -> Any:
        def second(e: Any) -> Any:
            def along(x: Any) -> Any:
                return jax.jvp(lambda x: network(params, x), (x,), (e,))[1]

            return jax.jvp(along, (x,), (e,))[1]

        return jax.vmap(second)(jnp.eye(2)).sum() + network(params, x) - source(x)

    return jnp.square(jax.vmap(at)(points)).mean()


def boundary(params: Any, points: Any) -> Any:
    """The mean square of u where it is 0."""
    return jnp.square(jax.vmap(lambda x: network(params, x))(points)).mean()


def draw(key: Any) -> dict[str, Any]:
    """Points inside and on the boundary of the square: each loss has a batch of its own."""
    inside, along, side = jax.random.split(key, 3)
    free = jax.random.uniform(along, (64,), minval=-1, maxval=1)
    fixed = jnp.where(jnp.arange(64) % 2, 1.0, -1.0)
    swap = jax.random.bernoulli(side, 0.5, (64, 1))
    edge = jnp.stack([free, fixed], 1)
    return {
        "residual": jax.random.uniform(inside, (128, 2), minval=-1, maxval=1),
        "boundary": jnp.where(swap, edge, edge[:, ::-1]),
    }


def error(params: Any) -> Any:
    """The relative L2 error on a grid."""
    line = jnp.linspace(-1, 1, 101)
    grid = jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)
    found, wanted = jax.vmap(lambda x: network(params, x))(grid), jax.vmap(exact)(grid)
    return jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted)


def train(method: str, steps: int) -> Callable:
    """The compiled function from a key to (error, whether every step was finite)."""
    balanced = mtl.balanced({"residual": residual, "boundary": boundary}, mtl.balancing.build(method))
    tx = optax.adam(optax.exponential_decay(3e-3, steps, 0.01))

    def step(carry: Any, key: Any) -> Any:
        params, state, opt_state = carry
        grads, state, info = balanced(params, state, draw(key))
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), info.applied

    def run(key: Any) -> Any:
        params = init(jax.random.fold_in(key, 0))
        first = params, balanced.init(params), tx.init(params)
        (params, *_), applied = jax.lax.scan(step, first, jax.random.split(jax.random.fold_in(key, 1), steps))
        return error(params), applied.all()

    return jax.jit(run).lower(jax.random.key(0)).compile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}, Python {platform.python_version()}")
    print(f"Helmholtz; {given.steps} steps, {given.seeds} seeds\n")
    rows = []
    for name, method in METHODS.items():
        run, errors, began = train(method, given.steps), [], time.perf_counter()
        for seed in range(given.seeds):
            found, applied = run(jax.random.key(seed))
            if not applied:
                raise FloatingPointError(f"{name}, seed {seed}: a step was not finite")
            errors.append(100 * float(found))
        each = 1000 * (time.perf_counter() - began) / given.seeds / given.steps
        rows.append((name, f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}", f"{each:.2f}"))
    rows.append(("nothing", "100.00", ""))
    print(table(rows, ("method", "relative error %", "ms/step"), right=(1, 2)))


if __name__ == "__main__":
    main()
