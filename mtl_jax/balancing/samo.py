"""SAMO, sharpness-aware multi-task optimization with joint global-local perturbation (Ban, Subramani and Ji, ICCV 2025,
arXiv:2507.07883).
"""

import zlib

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Needs, Result, draws
from mtl_jax.balancing.given import given_method
from mtl_jax.batch import aligned
from mtl_jax.gradients.gramian import combine, gramian

PERTURBING = zlib.crc32(b"samo")  # what its draws depend on besides the step's key, which the method draws from


def length(leaves):
    """The norm over all leaves, in a unit in which no square overflows or vanishes."""
    if not leaves:
        return jnp.zeros(())
    largest = jnp.stack([jnp.abs(x).max() for x in leaves.values()]).max()
    unit = jnp.where(largest > 0, largest, 1)
    return unit * jnp.sqrt(sum(((x / unit) ** 2).sum() for x in leaves.values()))


def of_length(leaves, wanted):
    """The leaves, which are at a common unit, brought to this norm; 0 stays 0."""
    norm = length(leaves)
    inverse = jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0)
    return {p: wanted * inverse.astype(x.dtype) * x for p, x in leaves.items()}


@parts.recorded(
    objects=("method",),
    paper="Ban, Subramani and Ji, ICCV 2025, arXiv:2507.07883",
    when="generalisation matters more than time; any method on gradients at sharp directions",
)
def samo(method: str | Balancer = "equal", rho: float = 0.001, local: float = 0.5, step: float = 0.01) -> Balancer:
    """Another method, on each task's gradient at parameters of its own: a step of rho up from where the model stands.

    For task t the trunk moves along (1 - local) g + local h_t, g the gradient of the mean loss and h_t an estimate of
    t's own: z (L_t(x + step z) - L_t(x - step z)), z normal, whose every leaf is brought to the length of g's. Its head
    moves along its own gradient, by rho too. Both are then moved back, and the method combines the gradients found
    there. Without labels a task does not move.

    It reads no gradients but makes its own, all K of the whole model, and holds them.

    Args:
      method: any that reads losses, the Gramian or the Jacobian, by name or as an object.
      rho: length of the perturbations, of trunk and of head.
      local: share of the task's own direction; 0 needs no forward passes but those of the gradients.
      step: of the estimate.

    Raises:
      ValueError: for a method that reads two samples, validation batches or losses elsewhere.
    """
    wrapped = given_method("samo: method", method)
    if wrapped.needs is Needs.CROSS or wrapped.needs.functions:
        raise ValueError(f"samo: {wrapped.spec or 'the given method'} reads {wrapped.needs.value}, and gradients at "
                         "perturbed parameters are neither; use one that reads losses, the Gramian or the Jacobian, "
                         "such as 'fairgrad'")  # fmt: skip
    check("samo", "at least 0", rho=rho)
    check("samo", "in [0, 1]", local=local)
    check("samo", "above 0", step=step)

    def perturbed_rows(signal, mask, key):
        """{leaf: [K, ...]}, each task's gradient of trunk and heads at its perturbed parameters."""
        oracle = signal.oracle
        leaves, losses, dtype = oracle.leaves, oracle.train, signal.losses.dtype
        trunk = sorted(oracle.shared)
        heads = [p for p in leaves if p not in oracle.shared]
        each = jnp.eye(len(mask), dtype=dtype)
        even = mask.astype(dtype) / jnp.maximum(mask.sum(), 1).astype(dtype)
        common = losses.gradient(leaves, even)
        common = {p: common[p] for p in trunk}
        size = {p: length({p: common[p]}) for p in trunk}
        unit = length(common)
        unit = jnp.where(unit > 0, unit, 1)

        def of_heads(one):
            found = losses.gradient(leaves, one)
            return {p: found[p] for p in heads}

        # Of one model at K weights: the trunk runs forward once, and is not pulled.
        up = jax.vmap(of_heads)(each) if heads else {}

        def toward(task_key, one):
            drawn = {
                p: jax.random.normal(jax.random.fold_in(task_key, zlib.crc32(p.encode())), leaves[p].shape, dtype)
                for p in trunk
            }

            def at(distance):
                there = {p: leaves[p] + (distance * z).astype(leaves[p].dtype) for p, z in drawn.items()}
                return one @ losses.value({**leaves, **there})

            rising = jnp.sign(at(step) - at(-step))
            return {p: size[p] / unit * rising * of_length({p: z}, 1.0)[p] for p, z in drawn.items()}

        def pull(given):
            task_key, one, up = given
            push = {p: (1 - local) * g / unit for p, g in common.items()}
            if local > 0:
                push = {p: push[p] + local * x.astype(push[p].dtype) for p, x in toward(task_key, one).items()}
            moved = {**of_length(push, rho), **of_length(up, rho)}
            return losses.gradient({p: x + moved[p].astype(x.dtype) for p, x in leaves.items()}, one)

        keys = draws(jax.random.fold_in(key, PERTURBING), signal.ids)
        rows = jax.lax.map(pull, (keys, each, up))
        return {p: jnp.where(aligned(mask, x), x, 0) for p, x in rows.items()}

    def update(signal, state, *, mask, key):
        rows = perturbed_rows(signal, mask, key)
        trunk = {p: x for p, x in rows.items() if p in signal.oracle.shared}
        shown = signal._replace(
            oracle=None,
            gramian=gramian(trunk) if wrapped.needs is Needs.GRAMIAN else None,
            jacobian=trunk if wrapped.needs is Needs.JACOBIAN else None,
        )
        result, state = wrapped.update(shown, state, mask=mask, key=key)
        direction = combine(result.weights, trunk) if result.direction is None else result.direction
        weights = mask.astype(signal.losses.dtype) if result.head_weights is None else result.head_weights
        heads = combine(weights, {p: x for p, x in rows.items() if p not in trunk})
        return Result(direction={**heads, **direction}), state

    return Balancer(wrapped.init, update, Needs.LANDSCAPE, wrapped.after, about=wrapped.about, directs=True,
                    positive=wrapped.positive, keeps=wrapped.memory)  # fmt: skip
