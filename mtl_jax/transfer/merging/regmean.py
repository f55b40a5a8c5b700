"""RegMean: the merged layer answers each task's inputs as that task's layer does, by least squares; and RegMean++."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from mtl_jax import partition
from mtl_jax.transfer.merging.trees import check_share, leafwise, read

CUTOFF = 1e-6  # eigenvalues below this share of the largest are rounding: there the mean of the models stays
SHRUNK = 1e-12  # the same of a Gram matrix whose off-diagonal entries were made smaller, which has none of rounding
Grams = Mapping[str, Float[np.ndarray, "input input"]]


def regmean(models: Sequence[Any], grams: Sequence[Grams], *, keep: float = 0.9) -> Any:
    """(sum_t G_t)^-1 sum_t G_t W_t, which minimises sum_t ||X_t W - X_t W_t||^2, for every matrix with grams.

    Jin, Ren, Preotiuc-Pietro and Cheng, "Dataless knowledge fusion by merging weights of language models", ICLR 2023,
    arXiv:2212.09849. Other leaves are averaged; so is a matrix in directions that no input of any task has, where the
    formula has no answer.

    Args:
      models: trees.
      grams: {path: G_t [in, in]} of each model, the mean outer product of what enters the layer
        (`layer_inputs.make_grams`). A kernel of more axes is read as [inputs, outputs].
      keep: the factor of G's off-diagonal entries; 1 is plain least squares, the paper has 0.9.
    """
    check_share(keep, "keep")
    flat, _ = read(models)
    if len(grams) != len(flat):
        raise ValueError(f"there are grams of {len(grams)} models, and {len(flat)} models")
    chosen = set(grams[0])
    for i, of_model in enumerate(grams):
        if set(of_model) != chosen:
            raise ValueError(f"grams of model {i} have other paths than those of model 0: "
                             f"{', '.join(sorted(set(of_model) ^ chosen)[:3])}")  # fmt: skip
        for path, gram in of_model.items():
            if path not in flat[0]:
                raise ValueError(f"grams have the path {path!r}, which is no parameter of the models")
            if not np.isfinite(gram).all():
                raise ValueError(f"the inputs of {path} in model {i} are not finite")
    return leafwise(
        lambda path, leaves, _: (
            least_squares(leaves, [off_diagonal(g[path], keep) for g in grams], CUTOFF if keep == 1 else SHRUNK)
            if path in chosen
            else leaves.mean(0)
        ),
        models[0],
        flat,
    )


def off_diagonal(gram: Any, factor: float) -> Float[np.ndarray, "input input"]:
    """A Gram matrix with its off-diagonal entries times `factor`."""
    gram = np.asarray(gram, np.float64)
    return factor * gram + (1 - factor) * np.diag(np.diag(gram))


def least_squares(
    leaves: Float[np.ndarray, "model ..."], grams: Sequence[Float[np.ndarray, "input input"]], cutoff: float = CUTOFF
) -> Float[np.ndarray, "..."]:
    """The minimiser of sum_t tr (W - W_t)' G_t (W - W_t) that is nearest to the mean of all W_t."""
    width = len(grams[0])
    if leaves[0].size % width:
        raise ValueError(f"a Gram matrix of {width} inputs does not fit a kernel of shape {leaves[0].shape}")
    kernels = leaves.reshape(len(leaves), width, -1).astype(np.float64)
    return nearest_minimum(kernels.mean(0), kernels, grams, cutoff).reshape(leaves.shape[1:])


def nearest_minimum(
    start: Float[np.ndarray, "input output"],
    kernels: Float[np.ndarray, "model input output"],
    grams: Sequence[Float[np.ndarray, "input input"]],
    cutoff: float = CUTOFF,
) -> Float[np.ndarray, "input output"]:
    """The minimiser of sum_t tr (W - W_t)' G_t (W - W_t) that is nearest to `start`.

    By Cholesky where all eigenvalues that inputs have are above `cutoff` times the largest, else, several times as
    slow, by an eigendecomposition of which those above it are taken.
    """
    from scipy import linalg

    total = np.sum(grams, 0)
    residual = np.sum([g @ (k - start) for g, k in zip(grams, kernels, strict=True)], 0)
    live = np.diag(total) > 0  # others are dead units: no row has them
    if not live.any():
        return start
    total, residual = total[np.ix_(live, live)], residual[live]
    found = start.copy()
    factor, failed = linalg.lapack.dpotrf(total, lower=1)
    # The reciprocal condition in the 1-norm is at most the ratio of the eigenvalues.
    if not failed and linalg.lapack.dpocon(factor, np.abs(total).sum(0).max(), uplo="L")[0] > cutoff:
        found[live] += linalg.cho_solve((factor, True), residual)
        return found
    values, vectors = np.linalg.eigh(total)
    kept = values > cutoff * values[-1]
    found[live] += vectors[:, kept] @ ((vectors[:, kept].T @ residual) / values[kept, None])
    return found


def regmean_plus_plus(
    models: Sequence[Any],
    stages: Sequence[Sequence[str]],
    grams_of: Callable[[int, Any], Grams],
    *,
    keep: float = 0.95,
) -> Any:
    """RegMean stage by stage, each on what the merged stages before it make of the tasks' inputs.

    Nguyen et al., "RegMean++: enhancing effectiveness and generalization of regression mean for model merging", 2025,
    arXiv:2508.03121. Within a stage the inputs of later layers come from the model's own earlier ones, as in the
    authors' code.

    Args:
      models: trees.
      stages: paths of the leaves of each stage, in the order of the computation. Leaves in none are averaged first.
      grams_of: (number of a model, a tree) -> {path: gram} of that model's task where the tree's parameters compute.
      keep: as `regmean` has it; the authors' code has 0.95 for vision.
    """
    check_share(keep, "keep")
    flat, _ = read(models)
    merged = {p: x for p, x in partition.flatten(regmean(models, [{} for _ in models])).items()}
    placed = [p for stage in stages for p in stage]
    if unknown := [p for p in placed if p not in merged]:
        raise ValueError(f"a stage has the path {unknown[0]!r}, which is no parameter of the models")
    own = [{p: m[p] for p in placed} for m in flat]
    done = {p: x for p, x in merged.items() if p not in own[0]}
    for stage in stages:
        here = set(stage)
        found = []
        for i, model in enumerate(own):
            tree = partition.unflatten({**merged, **model, **done}, jax.tree.map(np.asarray, models[i]))
            found.append({p: g for p, g in grams_of(i, tree).items() if p in here})
        part = [{p: m[p] for p in stage} for m in flat]
        fitted = regmean(part, found, keep=keep)
        done |= {p: fitted[p] for p in stage}
    return partition.unflatten({**merged, **done}, jax.tree.map(np.asarray, models[0]))
