"""GradVac, gradient vaccine (Wang et al., ICLR 2021, arXiv:2010.05874)."""

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Needs, Result
from mtl_jax.balancing.pcgrad import pair_draws
from mtl_jax.gradients.gramian import combine, gramian, pairs

GROUPS = ("whole", "layer", "leaf")
NEAREST = 0.999  # the largest goal of a cosine: what raising one to it adds grows without bound towards 1


def groups_of(paths, groups):
    """{group: [path]}: all in one, those of one module, or each by itself."""
    found = {}
    for path in sorted(paths):
        name = {"whole": "", "layer": path.rpartition("/")[0], "leaf": path}[groups]
        found.setdefault(name, []).append(path)
    return found


def vaccinate(gram, target, mask, key, ids, beta):
    """(weights [K], new targets [K, K]) of one group: cosines below their target are raised to it, in random order."""
    gram = jnp.where(pairs(mask), gram, 0)
    count = len(mask)
    length = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))

    by_pair = pair_draws(key, ids)

    def surgery(task, wanted):
        order = jnp.argsort(by_pair[task])

        def raise_cosine(i, carry):
            coefficients, wanted = carry
            other = order[i]
            own = jnp.sqrt(jnp.maximum(coefficients @ gram @ coefficients, 0))
            product = own * length[other]
            usable = (other != task) & (product > 0) & mask[task] & mask[other]
            cosine = jnp.clip((gram[other] @ coefficients) / jnp.where(product > 0, product, 1), -1, 1)
            goal = jnp.clip(wanted[other], -NEAREST, NEAREST)
            sine, goal_sine = jnp.sqrt(1 - cosine**2), jnp.sqrt(1 - goal**2)
            added = own * (goal * sine - cosine * goal_sine) / (jnp.where(product > 0, length[other], 1) * goal_sine)
            coefficients = coefficients.at[other].add(jnp.where(usable & (cosine < goal), added, 0))
            return coefficients, wanted.at[other].set(
                jnp.where(usable, (1 - beta) * wanted[other] + beta * cosine, wanted[other])
            )

        return jax.lax.fori_loop(0, count, raise_cosine, (jax.nn.one_hot(task, count, dtype=gram.dtype), wanted))

    coefficients, target = jax.vmap(surgery)(jnp.arange(count), target.astype(gram.dtype))
    weights = jnp.where(mask, jnp.where(mask[:, None], coefficients, 0).sum(0), 0)
    return weights, target


@parts.recorded(
    paper="Wang et al., ICLR 2021, arXiv:2010.05874",
    when="tasks whose gradients should be similar and are not yet",
)
def gradvac(beta: float = 0.5, groups: str = "whole") -> Balancer:
    """PCGrad with a goal for each pair's cosine, its moving average, in place of 0; the sum of what results.

    A goal counts as 0.999 at most, so that what is added for a pair is at most 22 times as long as the gradient.

    Args:
      beta: share of the newest cosine in the moving average, which starts at 0 (the first step is PCGrad's).
      groups: cosines of the "whole" gradients, or "layer" by layer (the leaves of one module), or "leaf" by leaf.
    """
    if groups not in GROUPS:
        raise parts.unknown("groups of gradvac", groups, GROUPS)
    check("gradvac", "in [0, 1]", beta=beta)

    def init(num_tasks, template):
        count = 1 if groups == "whole" else len(groups_of(template, groups))
        return jnp.zeros((count, num_tasks, num_tasks), jnp.float32)

    def whole(signal, state, *, mask, key):
        weights, target = vaccinate(signal.gramian, state[0], mask, key, signal.ids, beta)
        return Result(weights), target[None].astype(state.dtype)

    def grouped(signal, state, *, mask, key):
        direction, targets = {}, []
        for i, paths in enumerate(groups_of(signal.jacobian, groups).values()):
            part = {p: signal.jacobian[p] for p in paths}
            weights, target = vaccinate(gramian(part), state[i], mask, jax.random.fold_in(key, i), signal.ids, beta)
            direction |= combine(weights, part)
            targets.append(target.astype(state.dtype))
        return Result(direction=direction), jnp.stack(targets)

    if groups == "whole":
        return Balancer(init, whole, Needs.GRAMIAN, unit_free=True)
    return Balancer(init, grouped, Needs.JACOBIAN, directs=True)
