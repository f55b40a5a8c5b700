"""Small programs and systems for balancing: fixed shape, masked, and returning their residual.

The quadratic programs are non-negative ones of a K x K matrix, one per row of a batch, solved by modified proportioning
with reduced gradient projections (MPRGP; Dostal and Schoberl 2005): conjugate gradients among the variables that are
positive, a projected gradient step where one of them reaches 0, and a step that frees variables once their share of the
gradient dominates. All rows advance together by one product with the matrix, and nothing is factored.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from optax.projections import projection_simplex

from mtl_jax.gradients.gramian import pairs


def times(left: Array, right: Array) -> Array:
    """The matrix product in full precision, which accelerators do not give by default."""
    return jnp.matmul(left, right, precision="highest")


def nonnegative_qp(
    matrix: Float[Array, "task task"],
    linear: Float[Array, "row task"],
    mask: Bool[Array, " task"],
    start: Float[Array, "row task"] | None = None,
) -> tuple[Float[Array, "row task"], Float[Array, " row"]]:
    """min over z >= 0 of z'Mz / 2 + c'z, one program per row c of `linear`.

    Args:
      matrix: M, symmetric positive definite on the present tasks; semi-definite will do where a minimum exists.
      linear: the rows c.
      mask: present tasks; the others get z = 0.
      start: a guess of z; zeros by default.

    Returns:
      z, and the residual max_i |min(z_i, (Mz + c)_i)| of each row, in units where M's diagonal and max |c| are 1.
    """
    size, eps = len(mask), jnp.finfo(matrix.dtype).eps
    matrix = jnp.where(pairs(mask), matrix, 0)
    diagonal = jnp.diagonal(matrix)
    unit = jnp.where(diagonal > 0, jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    matrix = matrix * unit[:, None] * unit[None, :]
    linear = jnp.where(mask, linear * unit, 0)
    scale = jnp.maximum(jnp.abs(linear).max(-1, keepdims=True), jnp.finfo(matrix.dtype).tiny)
    linear = linear / scale
    short = 1.9 / jnp.maximum(jnp.abs(matrix).sum(1).max(), 1)  # a projected step of at most 2 / |M| does not ascend
    ones = jnp.ones(size, matrix.dtype)

    def dots(x: Array, y: Array) -> Array:
        return times(x * y, ones)  # on a CPU much faster than a sum along the row

    def split(z: Array, slope: Array) -> tuple[Array, Array, Array, Array]:
        """(the slope's free part, its part that frees, whether the first dominates, whether both vanish)."""
        free = jnp.where(z > 0, slope, 0)
        freeing = jnp.where(z > 0, 0, jnp.minimum(slope, 0))
        inside, outside = dots(jnp.minimum(z / short, free), free), dots(freeing, freeing)
        limit = 8 * eps * jnp.maximum(1, z.max(-1))
        return free, freeing, outside <= inside, ~(inside + outside > limit**2)

    def advance(carry: tuple) -> tuple:
        # A stale row's product gives its slope, after a projection or to confirm the end; the others' moves them.
        z, slope, direction, conjugate, stale, done, count = carry
        product = times(jnp.where(stale[:, None], z, direction), matrix)
        curvature = dots(direction, product)
        rising = curvature > 0
        curvature = jnp.where(rising, curvature, 1)
        best = dots(slope, direction) / curvature
        allowed = jnp.where(direction > 0, z / direction, jnp.inf).min(-1)
        length = jnp.where(stale | done | ~rising, 0, jnp.minimum(best, allowed))[:, None]
        moved = jnp.maximum(z - length * direction, 0)
        slope = jnp.where(stale[:, None], product + linear, slope - length * product)
        project = ~(stale | done) & (best > allowed)
        projected = jnp.maximum(moved - short * slope, 0)
        z = jnp.where(project[:, None] & (moved > 0), projected, moved)
        free, freeing, dominant, converged = split(z, slope)
        beta = jnp.where(conjugate & ~stale, dots(free, product) / curvature, 0)
        direction = jnp.where(dominant[:, None], free - beta[:, None] * direction, freeing)
        done |= stale & converged
        return z, slope, direction, dominant & ~project, project | (converged & ~stale & ~done), done, count + 1

    def unfinished(carry: tuple) -> Array:
        return ~carry[5].all() & (carry[6] < 20 * size + 100)

    z = jnp.zeros_like(linear) if start is None else jnp.where(mask, jnp.maximum(start / unit / scale, 0), 0)
    _, freeing, _, done = split(jnp.zeros_like(linear), linear)
    no = jnp.zeros_like(done)
    begin = (z, linear, freeing, no, no | (start is not None), done, jnp.zeros((), int))
    z = jax.lax.while_loop(unfinished, advance, begin)[0]
    residual = jnp.abs(jnp.minimum(z, times(z, matrix) + linear)).max(-1)
    return z * scale * unit, residual


def dual_cone(
    gramian: Float[Array, "task task"], lower: Float[Array, "row task"], mask: Bool[Array, " task"]
) -> tuple[Float[Array, "row task"], Float[Array, " row"]]:
    """min over v >= u of v'Gv, one program per row u of `lower`: J'v is the projection of J'u onto the dual cone.

    Args:
      gramian: G, positive definite on the present tasks.
      lower: the rows u.
      mask: present tasks; the others get v = 0.

    Returns:
      v, and the residual of each row as in `nonnegative_qp`.
    """
    lower = jnp.where(mask, lower, 0)
    gramian = jnp.where(pairs(mask), gramian, 0)
    z, residual = nonnegative_qp(gramian, times(lower, gramian), mask)
    return lower + z, residual


def regularized(
    gramian: Float[Array, "task task"], mask: Bool[Array, " task"], regularization: float
) -> Float[Array, "task task"]:
    """G with r tr(G) added to its diagonal, but to none more than 10 K r times itself, K the present tasks.

    So that what is added hides no conflict of a short gradient with a long one.
    """
    diagonal = jnp.diagonal(gramian)
    added = jnp.minimum(jnp.where(mask, diagonal, 0).sum(), 10 * mask.sum().astype(gramian.dtype) * diagonal)
    return gramian + regularization * jnp.diag(added)


def min_norm_point(
    gramian: Float[Array, "task task"], mask: Bool[Array, " task"], regularization: float = 1e-6
) -> tuple[Float[Array, " task"], Float[Array, ""]]:
    """min over w in the simplex of w'Gw: the weights of the shortest vector in the convex hull of the rows of J.

    With y = |g_i| z_i the optimality conditions become those of a non-negative program in the matrix of cosines, so
    that rows of very different lengths do no harm.

    Args:
      gramian: G = J J', of any scale.
      mask: present tasks; the others get weight 0. Without any, all weights are 0.
      regularization: added to the diagonal of the cosines, which makes the solution unique.

    Returns:
      The weights, and the residual max_i (w'Gw - (Gw)_i) relative to the largest squared length: 0 at the optimum.
    """
    gramian = jnp.where(mask[:, None] & mask[None, :], gramian, 0)
    length = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0))
    longest = jnp.where(length.max() > 0, length.max(), 1)  # its square, which a compiler may form, is no 0
    # A zero row is the shortest vector by itself; a tiny length gives it all the weight.
    length = jnp.where(mask, jnp.maximum(length / longest, 1e-9), 1)
    cosines = gramian / longest / longest / length[:, None] / length[None, :]
    shortest = jnp.where(mask, length, jnp.inf).min()
    pull = jnp.where(mask, shortest / length, 0)
    y, _ = nonnegative_qp(cosines + regularization * jnp.eye(len(mask), dtype=cosines.dtype), -pull[None], mask)
    weights = y[0] * pull
    weights = weights / jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)
    scaled = gramian / longest / longest
    slope = scaled @ weights
    return weights, jnp.where(mask, weights @ slope - slope, 0).max()


def best_in_ball(
    gramian: Float[Array, "task task"],
    offset: Float[Array, " task"],
    radius: Float[Array, ""],
    mask: Bool[Array, " task"],
    regularization: float = 1e-6,
) -> tuple[Float[Array, " task"], Float[Array, ""]]:
    """The d = J'y with |d| <= radius that maximises min_i (offset_i + g_i'd).

    The shortest d that reaches the level l everywhere is J'y, with y a non-negative program in l; its length is convex
    and increasing in l, so Newton's method finds the level where it is the radius, from an upper bound downwards.

    Args:
      gramian: G = J J', of entries around 1.
      offset: the value of each task at d = 0.
      radius: positive.
      mask: present tasks; the others get y = 0.
      regularization: what is added to G's diagonal, relative to it.

    Returns:
      y >= 0, and the residual ||d| / radius - 1|. It is large where a d inside the ball is as good: then 0 is in the
      convex hull of some rows, and y holds a large multiple of that combination besides.
    """
    given, offset = jnp.where(pairs(mask), gramian, 0), jnp.where(mask, offset, 0)
    diagonal = jnp.maximum(jnp.diagonal(given), 0)
    gramian = given + jnp.diag(regularization * jnp.maximum(diagonal, 1e-12))
    mean = mask.astype(gramian.dtype) / jnp.maximum(mask.sum(), 1).astype(gramian.dtype)
    tiny = jnp.finfo(gramian.dtype).tiny

    def norm(y: Array, gramian: Array = gramian) -> Array:
        return jnp.sqrt(jnp.maximum(y @ times(gramian, y), 0))

    def unfinished(carry: tuple) -> Array:
        return carry[2] & (carry[3] < 30)

    def newton(carry: tuple) -> tuple:
        level, y, _, count = carry
        y = nonnegative_qp(gramian, (offset - level)[None], mask, y[None])[0][0]
        length = norm(y)
        # The slope of the length by the level is sum(y) / length.
        change = (length - radius) * length / jnp.maximum(y.sum(), tiny)
        visible = jnp.abs(change) > 2 * jnp.finfo(y.dtype).eps * (jnp.abs(level) + size)
        return level - change, y, visible & (jnp.abs(length - radius) > 1e-6 * radius), count + 1

    size = jnp.abs(offset).max()
    alone = jnp.where(mask, offset + radius * jnp.sqrt(diagonal), jnp.inf).min()
    level = jnp.where(mask.any(), jnp.minimum(alone, mean @ offset + radius * norm(mean)), 0)
    begin = (level, jnp.zeros_like(offset), jnp.ones((), bool), jnp.zeros((), int))
    y = jax.lax.while_loop(unfinished, newton, begin)[1]
    return y, jnp.abs(norm(y, given) / radius - 1)


def project_simplex(x: Float[Array, " task"], mask: Bool[Array, " task"]) -> Float[Array, " task"]:
    """The point of the simplex over the present tasks that is nearest to x; absent tasks get 0.

    Without a present task everything is 0.
    """
    # No weight goes to what lies more than 1 below the largest entry, so absent tasks can stand at -2.
    shifted = jnp.where(mask, x - jnp.where(mask, x, -jnp.inf).max(), -2)
    return jnp.where(mask, projection_simplex(shifted), 0)


def pinv_solve(matrix: Float[Array, "task task"], right: Float[Array, " task"]) -> Float[Array, " task"]:
    """The pseudo-inverse of a symmetric positive semi-definite matrix times `right`.

    Eigenvalues within rounding of zero count as zero, so rows and columns of absent tasks may be zero. They are only
    computed where the pivots of a Cholesky factorisation, several times as fast, say that the rank is in doubt.
    """
    diagonal = jnp.diagonal(matrix)
    absent = diagonal == 0
    factor = jnp.linalg.cholesky(matrix + jnp.diag(absent.astype(matrix.dtype)))

    def by_eigenvalues() -> Array:
        values, vectors = jnp.linalg.eigh(matrix)
        kept = values > len(right) * 8 * jnp.finfo(matrix.dtype).eps * jnp.maximum(values[-1], 0)
        return vectors @ jnp.where(kept, (vectors.T @ right) / jnp.where(kept, values, 1), 0)

    def by_factor() -> Array:
        return jnp.where(absent, 0, jax.scipy.linalg.cho_solve((factor, True), right))

    certain = jnp.where(absent, jnp.inf, jnp.diagonal(factor) ** 2).min() > 1e-3 * diagonal.max()  # not where nan
    return jax.lax.cond(certain, by_factor, by_eigenvalues)
