"""Small linear programs over the simplex, by Mehrotra's predictor-corrector interior point method (1992).

Infeasible start, fixed shape, masked; each step factors one matrix of the size of the variables.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax.balancing.solvers import times

MOST_STEPS = 40
PATIENCE = 6  # steps that bring the residual down by less than a tenth before it counts as rounding
REFINEMENTS = 2  # of each linear system's solution
ENOUGH = 1e-6  # residual, in units of the largest entry of each row and of the cost


def linear_program(
    cost: Float[Array, " var"],
    matrix: Float[Array, "row var"],
    lower: Float[Array, " row"],
    mask: Bool[Array, " var"],
    rows: Bool[Array, " row"],
) -> tuple[Float[Array, " var"], Float[Array, ""]]:
    """min c'x over x in the simplex with A x >= b.

    Args:
      cost: c.
      matrix: A.
      lower: b.
      mask: the variables that take part; the others are 0, and their columns may hold anything.
      rows: the constraints that hold; the others may hold anything.

    Returns:
      x, which lies in the simplex, and the residual: the larger of max (b - A x) and c'x minus a lower bound of it that
      the multipliers give, with A's rows and c scaled to a largest entry of 1. It stays large if nothing is feasible.
    """
    dtype, tiny = matrix.dtype, jnp.finfo(matrix.dtype).tiny
    ones = mask.astype(dtype)
    matrix = jnp.where(rows[:, None] & mask[None, :], matrix, 0)
    largest = jnp.abs(matrix).max(1)
    rows = rows & ((largest > 0) | (lower > 0))  # a row of zeros that holds anyway has no slack to move
    scale = jnp.where(rows & (largest > 0), largest, 1)
    matrix = jnp.where(rows[:, None], matrix / scale[:, None], 0)
    lower = jnp.where(rows, lower / scale, -1)
    cost = jnp.where(mask, cost, 0)
    cost = cost / jnp.maximum(jnp.abs(cost).max(), tiny)
    pairs = mask.sum() + rows.sum()

    def length(x: Array, dx: Array, there: Array) -> Array:
        """The longest step, up to 1, that keeps x positive."""
        return jnp.minimum(1, jnp.where(there & (dx < 0), x / jnp.maximum(-dx, tiny), jnp.inf).min())

    def grade(x: Array, y: Array) -> tuple[Array, Array]:
        """x on the simplex, and its residual by the dual bound of y."""
        x = jnp.where(mask, x, 0)
        x = x / jnp.maximum(x.sum(), tiny)
        bound = lower @ y + jnp.where(mask, cost - times(y, matrix), jnp.inf).min()
        violation = jnp.where(rows, lower - times(matrix, x), 0).max()
        return x, jnp.maximum(violation, times(cost, x) - bound)

    def step(carry: tuple) -> tuple:
        x, s, y, z, nu, best, least, count, patience = carry
        dual = jnp.where(mask, cost - times(y, matrix) - nu - z, 0)
        primal = jnp.where(rows, lower + s - times(matrix, x), 0)
        total = 1 - ones @ x
        mu = (jnp.where(mask, x * z, 0).sum() + jnp.where(rows, y * s, 0).sum()) / pairs
        by_row, by_variable = jnp.where(rows, y / s, 0), jnp.where(mask, z / x, 1)
        system = times(matrix.T * by_row, matrix) + jnp.diag(by_variable)
        root = jax.lax.rsqrt(jnp.diagonal(system))
        system = system * root[:, None] * root[None, :] + 4 * jnp.finfo(dtype).eps * jnp.eye(len(mask), dtype=dtype)
        factor = jnp.linalg.cholesky(system)

        def roughly(right: Array) -> Array:
            return root * jax.scipy.linalg.cho_solve((factor, True), root * right)

        def solve(right: Array) -> Array:
            # Near the end weights differ by many orders, and sums over rows lose what the products still hold.
            found = roughly(right)
            for _ in range(REFINEMENTS):
                applied = times(times(matrix, found) * by_row, matrix) + by_variable * found
                found = found + roughly(right - applied)
            return found

        unit = solve(ones)

        def direction(xz: Array, ys: Array) -> tuple[Array, ...]:
            right = jnp.where(mask, times((ys + y * primal) / s, matrix) + xz / x - dual, 0)
            free = solve(right)
            dnu = (total - ones @ free) / (ones @ unit)
            dx = jnp.where(mask, free + dnu * unit, 0)
            ds = jnp.where(rows, times(matrix, dx) - primal, 0)
            dy = jnp.where(rows, (ys - y * ds) / s, 0)
            return dx, ds, dy, jnp.where(mask, (xz - z * dx) / x, 0), dnu

        def lengths(dx: Array, ds: Array, dy: Array, dz: Array) -> tuple[Array, Array]:
            return (jnp.minimum(length(x, dx, mask), length(s, ds, rows)),
                    jnp.minimum(length(y, dy, rows), length(z, dz, mask)))  # fmt: skip

        dx, ds, dy, dz, _ = direction(-x * z, -y * s)
        a, b = lengths(dx, ds, dy, dz)
        after = jnp.where(mask, (x + a * dx) * (z + b * dz), 0).sum()
        after = (after + jnp.where(rows, (y + b * dy) * (s + a * ds), 0).sum()) / pairs
        centre = (after / mu) ** 3 * mu
        dx, ds, dy, dz, dnu = direction(centre - x * z - dx * dz, centre - y * s - dy * ds)
        a, b = (0.99 * v for v in lengths(dx, ds, dy, dz))
        x, s = jnp.where(mask, x + a * dx, 1), jnp.where(rows, s + a * ds, 1)
        y, z = jnp.where(rows, y + b * dy, 0), jnp.where(mask, z + b * dz, 1)
        found, residual = grade(x, y)
        better = residual < least
        patience = jnp.where(residual < 0.9 * least, PATIENCE, patience - 1)
        best, least = jnp.where(better, found, best), jnp.where(better, residual, least)
        count = jnp.where(jnp.isfinite(residual), count + 1, MOST_STEPS)
        return x, s, y, z, nu + b * dnu, best, least, count, patience

    def unfinished(carry: tuple) -> Array:
        return (carry[6] > ENOUGH) & (carry[7] < MOST_STEPS) & (carry[8] > 0)

    x = jnp.where(mask, 1 / jnp.maximum(ones.sum(), 1), 1)
    s = jnp.where(rows, jnp.maximum(times(matrix, jnp.where(mask, x, 0)) - lower, 1), 1)
    y, z = jnp.where(rows, 1, jnp.zeros_like(lower)), jnp.ones_like(cost)
    found, residual = grade(x, y)
    begin = (x, s, y, z, jnp.zeros((), dtype), found, residual, jnp.zeros((), int), jnp.full((), PATIENCE))
    carry = jax.lax.while_loop(unfinished, step, begin)
    return carry[5], carry[6]
