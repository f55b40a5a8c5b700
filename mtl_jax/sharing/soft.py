"""Soft parameter sharing: a network per task, tied by a penalty on how their weights differ.

"mean" (Evgeniou and Pontil, KDD 2004) pulls weights to their mean; "pairwise" to each other, as strongly as given task
relations say; "covariance" learns the relations (MTRL; Zhang and Yeung, UAI 2010, arXiv:1203.3536); "trace_norm" makes
the weights of all tasks span few dimensions (Yang and Hospedales 2017, arXiv:1606.04038).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax import partition, parts
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.hard import trunk_and_branches
from mtl_jax.stacking import View, over_tasks
from mtl_jax.tasks import Task, check_names

PENALTIES = ("mean", "pairwise", "covariance", "trace_norm")


def stacked_weights(variables: Any, names: Sequence[str], layers: Sequence[str]) -> dict[str, Float[Array, "task ..."]]:
    """{path in the network: the tasks' weights stacked}, of the named layers of networks under ``tasks/<t>/encoder``.

    Raises:
      ValueError: if networks differ in a shape, or these layers have no weights.
    """

    def own(tree: Any) -> dict[str, Any]:
        return partition.flatten({n: tree["encoder"][n] for n in layers if n in tree["encoder"]})

    tasks = variables["params"]["tasks"]
    unlike = tuple(tasks.layout.groups) if isinstance(tasks, View) else names
    shapes = {t: jax.eval_shape(own, tasks[t]) for t in unlike}
    if not shapes[names[0]]:
        raise ValueError(f"soft: {', '.join(layers)} of the encoder has no weights, so nothing would be tied; tie more "
                         "stages, or use sharing 'independent'")  # fmt: skip
    for path, first in shapes[names[0]].items():
        for t in unlike:
            if shapes[t][path].shape != first.shape:
                raise ValueError(
                    f"soft: {path} is {first.shape} for task {names[0]!r} and {shapes[t][path].shape} for {t!r}; tied "
                    "networks need inputs of one shape; tie fewer layers, or use sharing 'independent'"
                )
    return over_tasks(tasks, names, own)


def gram_root(
    weights: Sequence[Float[Array, "task ..."]],
) -> tuple[Float[Array, "task task"], Float[Array, "task task"]]:
    """(G, its symmetric root, a constant), G = W W' over tasks plus what rounding may take from its eigenvalues.

    So the root can be divided by where weights coincide. A trace norm is right to the root of the dtype's precision.
    """
    rows = [w.reshape(len(w), -1) for w in weights]
    gram: Any = sum(jnp.matmul(r, r.T, precision="highest") for r in rows)
    limits, count = jnp.finfo(gram.dtype), len(gram)
    ridge = jax.lax.stop_gradient(8 * count * limits.eps * jnp.trace(gram)) + limits.tiny
    gram = gram + ridge * jnp.eye(count, dtype=gram.dtype)
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(gram))
    return gram, (vectors * jnp.sqrt(jnp.maximum(values, ridge))) @ vectors.T


def trace_norm(weights: Float[Array, "task ..."]) -> Float[Array, ""]:
    """The sum of the singular values of the tasks' stacked weights.

    As min over D of (tr(D^-1 G) + tr D) / 2, taken at D = G^(1/2): the same value and gradient, and no derivative of an
    eigenvector.
    """
    gram, root = gram_root([weights])
    return (jnp.trace(jnp.linalg.solve(root, gram)) + jnp.trace(root)) / 2


def covariance_of(weights: Sequence[Float[Array, "task ..."]]) -> Float[Array, "task task"]:
    """The task covariance Omega = (W W')^(1/2) / tr (W W')^(1/2), positive semi-definite with trace 1."""
    _, root = gram_root(weights)
    return root / jnp.trace(root)


def covariance_penalty(weights: Sequence[Float[Array, "task ..."]]) -> Float[Array, ""]:
    """min over Omega of tr(W' Omega^-1 W), taken at `covariance_of`: the squared trace norm of all weights."""
    gram, root = gram_root(weights)
    return jnp.trace(root) * jnp.trace(jnp.linalg.solve(root, gram))


def squared_distances(weights: Sequence[Float[Array, "task ..."]]) -> Float[Array, "task task"]:
    """|W_s - W_t|^2 over all leaves."""
    rows = jnp.concatenate([w.reshape(len(w), -1) for w in weights], 1)
    return jax.lax.map(lambda row: ((row - rows) ** 2).sum(1), rows)


def check_relations(relations: Any, names: Sequence[str]) -> np.ndarray:
    """The matrix, or an error if it is none that fits the tasks."""
    matrix = np.asarray(relations, np.float32)
    if matrix.shape != (len(names), len(names)) or (matrix != matrix.T).any() or (matrix < 0).any():
        raise ValueError(
            f"soft: relations must be a symmetric {len(names)} x {len(names)} matrix of numbers >= 0, a row per task "
            f"in the order ({', '.join(names)})"
        )
    return matrix


@architecture(
    paper=(
        "mean: Evgeniou and Pontil, KDD 2004; covariance: MTRL, Zhang and Yeung, UAI 2010, arXiv:1203.3536; "
        "trace_norm: Yang and Hospedales 2017, arXiv:1606.04038"
    ),
    when="related tasks with trunks of their own; linear models with relations to be read",
)
def soft(
    encoder: Encoder,
    tasks: Sequence[Task],
    penalty: str = "mean",
    weight: float = 1e-3,
    relations: Sequence[Sequence[float]] | None = None,
    stages: int | None = None,
) -> MultiTaskModel:
    """A network per task under ``tasks/<t>``, tied by `weight` times a penalty, which is added outside the balancer.

    - "mean": sum_t |W_t - mean W|^2.
    - "pairwise": sum over pairs of relations_st |W_s - W_t|^2.
    - "covariance": tr(W' Omega^-1 W) over all weights, Omega being the closed-form minimiser, so that the relations
      follow the weights at every step; `learned_relations` reads them.
    - "trace_norm": sum over layers' leaves of the trace norm of the tasks' stacked weights.

    Where it departs from the paper: the first two are about linear models; here the penalty is over all of a network's
    weights. Each network has a head of its own, which is not tied.

    Source: mean: Evgeniou and Pontil, KDD 2004; covariance: MTRL, Zhang and Yeung, UAI 2010, arXiv:1203.3536;
    trace_norm: Yang and Hospedales 2017, arXiv:1606.04038.

    Args:
      encoder: of each network.
      tasks: on common inputs, or each on its own of one shape.
      penalty, weight: as above; 0 makes independent networks.
      relations: for "pairwise", [task, task], symmetric, at least 0, in the tasks' order; None for all 1.
      stages: how many of the first stages are tied; None for all, with the pool.
    """
    tasks = check_names(tasks)
    names, depth = [t.name for t in tasks], len(encoder.stages)
    if penalty not in PENALTIES:
        raise parts.unknown("penalty of soft", penalty, PENALTIES)
    if relations is not None and penalty != "pairwise":
        raise ValueError(f"soft: relations are for penalty='pairwise'; it is {penalty!r}")
    if weight < 0:
        raise ValueError(f"soft: weight={weight} must not be negative")
    if stages is not None and not 1 <= stages <= depth:
        raise ValueError(f"soft: stages={stages} must lie in 1..{depth}, the encoder's stages")
    matrix = check_relations(np.ones((len(tasks),) * 2) if relations is None else relations, names)
    layers = [name for name, _ in base.layers(encoder, 0, stages)]

    def value(variables: Any) -> Float[Array, ""]:
        weights = list(stacked_weights(variables, names, layers).values())
        if penalty == "mean":
            spread: Any = sum(((w - w.mean(0)) ** 2).sum() for w in weights)
            return weight * spread
        if penalty == "pairwise":
            return weight * (jnp.triu(matrix, 1) * squared_distances(weights)).sum()
        if penalty == "covariance":
            return weight * covariance_penalty(weights)
        norms: Any = sum(trace_norm(w) for w in weights)
        return weight * norms

    return trunk_and_branches("soft", encoder, tasks, 0)._replace(penalty=value)


def learned_relations(model: MultiTaskModel, variables: Any, stages: int | None = None) -> Float[Array, "task task"]:
    """[K, K], the covariance that the "covariance" penalty uses at these variables, of the first `stages` or all.

    Raises:
      ValueError: for a model that was not made of an encoder.
    """
    if model.encoder is None:
        raise ValueError("soft: learned_relations reads networks by their encoder's stages, and this model has none; "
                         "give a model of mtl.sharing.soft")  # fmt: skip
    layers = [name for name, _ in base.layers(model.encoder, 0, stages)]
    return covariance_of(list(stacked_weights(variables, [t.name for t in model.tasks], layers).values()))
