"""A balancing method for each group of shared parameters: conflict need not be the same in early and late layers."""

import re

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result
from mtl_jax.balancing.given import given_method
from mtl_jax.gradients.gramian import combine, gramian


@parts.recorded(
    objects=("rules",),
    when="conflict in some layers only",
)
def grouped(rules: tuple = ((".*", "upgrad"),)) -> Balancer:
    """Each method combines the gradients of its own group of leaves; heads follow their own losses.

    Args:
      rules: ordered (regex over shared parameter paths, method by name or as an object); the first that matches
        decides.

    Raises:
      ValueError: for a method that reads two samples or validation batches or acts after the step, and (when training
        starts) for a rule that matches nothing or a leaf that no rule matches.
    """
    rules = tuple((pattern, given_method("grouped: the method of a rule", method)) for pattern, method in rules)
    for _, balancer in rules:
        if balancer.needs is Needs.CROSS or balancer.needs.functions or balancer.after is not None:
            raise ValueError(f"grouped: {balancer.spec or 'the given method'} cannot be the method of one group; use "
                             "one that reads losses, the Gramian or the Jacobian at the step alone")  # fmt: skip

    def groups(paths):
        found = {}
        for path in sorted(paths):
            chosen = next((i for i, (pattern, _) in enumerate(rules) if re.fullmatch(pattern, path)), None)
            if chosen is None:
                raise ValueError(f"grouped: no rule matches {path}; rules are {', '.join(p for p, _ in rules)}")
            found.setdefault(chosen, []).append(path)
        for i, (pattern, _) in enumerate(rules):
            if i not in found:
                raise ValueError(f"grouped: rule {pattern!r} matches no shared parameter, or only those of earlier "
                                 f"rules; paths are {', '.join(sorted(paths))}")  # fmt: skip
        return found

    def init(num_tasks, template):
        return {
            str(i): rules[i][1].init(num_tasks, {p: template[p] for p in paths})
            for i, paths in groups(template).items()
        }

    def update(signal, state, *, mask, key):
        direction, states = {}, {}
        for i, paths in groups(signal.jacobian).items():
            part = {p: signal.jacobian[p] for p in paths}
            balancer = rules[i][1]
            shown = signal._replace(
                gramian=gramian(part) if balancer.needs is Needs.GRAMIAN else None,
                jacobian=part if balancer.needs is Needs.JACOBIAN else None,
            )
            result, states[str(i)] = balancer.update(shown, state[str(i)], mask=mask, key=jax.random.fold_in(key, i))
            weights = None if result.weights is None else jnp.asarray(result.weights)
            direction |= result.direction if weights is None else combine(weights, part)
        return Result(direction=direction), states

    keeps = max(balancer.memory for _, balancer in rules)
    return Balancer(init, update, Needs.JACOBIAN, directs=True, keeps=keeps)
