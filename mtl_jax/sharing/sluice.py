"""Sluice networks (Ruder et al., AAAI 2019, arXiv:1705.08142)."""

import functools
import statistics
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.keys import named_key
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.positions import at_positions_of
from mtl_jax.sharing.task_columns import mixed_columns, own_and_others
from mtl_jax.tasks import Task, check_names


@architecture(
    paper="Ruder et al., AAAI 2019, arXiv:1705.08142",
    when="as cross_stitch, where only parts of the features are common",
)
def sluice(
    encoder: Encoder,
    tasks: Sequence[Task],
    subspaces: int = 2,
    own: float = 0.9,
    last: float = 0.9,
    orthogonality: float = 1e-3,
) -> MultiTaskModel:
    """A column of stages per task: what is shared, in which subspaces and from which stage, is learned.

    Behind each stage a matrix alpha mixes the subspaces (equal parts of the channels) of all columns. Task t reads
    sum_l beta_tl x_l over the stages; a stage of another width than the last has a linear map, of another number of
    positions is resampled. All is under ``shared``, stacked in the tasks' order: ``columns``, ``units/<stage>`` (alpha)
    and ``reading`` (beta, maps).

    Where it departs from the paper: the paper has three BiLSTM layers of one width; the maps of stages of another width
    are ours. Subspaces of recurrent and attention layers are parts of their features, and only kernels of plain layers
    are held orthogonal.

    Source: Ruder et al., AAAI 2019, arXiv:1705.08142.

    Args:
      encoder: of each column; each stage's width is a multiple of `subspaces`.
      tasks: on common inputs.
      subspaces: parts of a stage's channels.
      own: first weight of a subspace for itself; the rest is spread evenly over all others.
      last: first beta of the last stage; the rest is spread evenly over the others. With both 1 the model starts as
        independent networks.
      orthogonality: factor of the penalty sum ||G_i' G_j||^2 over pairs of subspaces, G_i being the part of a stage's
        kernel that makes subspace i.

    Raises:
      ValueError: if a stage's width is no multiple of `subspaces`, or a factor or share is impossible.
    """
    count, depth = len(check_names(tasks)), len(encoder.stages)
    if subspaces < 1 or orthogonality < 0:
        raise ValueError(
            f"sluice: subspaces={subspaces} must be at least 1 and orthogonality={orthogonality} not negative"
        )
    if not 0 <= last <= 1:
        raise ValueError(f"sluice: last={last} must lie in [0, 1]")
    first = own_and_others(count * subspaces, own, "sluice")
    first_beta = jnp.full((count, depth), (1 - last) / max(depth - 1, 1)).at[:, -1].set(last if depth > 1 else 1.0)

    def unit(at: Any, path: str, x: Float[Array, "task batch ... width"]) -> Float[Array, "task batch ... width"]:
        if x.shape[-1] % subspaces:
            raise ValueError(
                f"sluice: {path.split('/')[-1]} puts out {x.shape[1:]}, whose width {x.shape[-1]} does not divide into "
                f"subspaces={subspaces} equal parts"
            )
        alpha = at.leaf(path, lambda key: first.reshape(count, subspaces, count, subspaces)).astype(x.dtype)
        return jnp.einsum("tisj,s...jw->t...iw", alpha, x.reshape(*x.shape[:-1], subspaces, -1)).reshape(x.shape)

    def reading(at: Any, behind: list) -> Any:
        width, maps = values_of(behind[-1]).shape[-1], {}
        for i, x in enumerate(map(values_of, behind)):
            if x.shape[-1] != width:
                shape = (x.shape[-1], width)
                begin = functools.partial(same_maps, at=at, name=f"stage_{i}", shape=shape)
                maps[i] = at.leaf(f"shared/reading/maps/stage_{i}", begin)

        def one(beta: Array, maps: dict[int, Array], behind: list) -> Array:
            total: Any = 0
            for i, x in enumerate(behind):
                values = at_positions_of(x, behind[-1])
                values = values @ maps[i].astype(values.dtype) if i in maps else values
                total = total + beta[i].astype(values.dtype) * values
            return total

        beta = at.leaf("shared/reading/beta", lambda key: first_beta)
        return with_values(behind[-1], jax.vmap(one)(beta, maps, behind))

    def same_maps(key: Array, at: Any, name: str, shape: tuple[int, int]) -> Float[Array, "task width last"]:
        draw = jax.nn.initializers.lecun_normal()(named_key(named_key(at.key, "shared/reading"), name), shape)
        return jnp.repeat(draw[None], count, 0)

    def penalty(variables: Any) -> Float[Array, ""]:
        """Over kernels that end in their stage's channels, whose number is the commonest last axis of its leaves."""
        total = jnp.zeros(())
        for name in variables["params"]["shared"]["units"]:
            leaves = jax.tree.leaves(variables["params"]["shared"]["columns"].get(name, {}))
            if not leaves:
                continue
            width = statistics.mode(x.shape[-1] for x in leaves)
            for x in leaves:
                if x.ndim > 2 and x.shape[-1] == width and width % subspaces == 0:
                    parts_of = x.reshape(count, -1, subspaces, width // subspaces)
                    gram = jnp.einsum("tdiv,tdjw->tijvw", parts_of, parts_of) ** 2
                    total = total + (gram.sum() - jnp.einsum("tiivw->", gram)) / 2
        return orthogonality * total

    return mixed_columns(encoder, tasks, "sluice", unit, reading, penalty=penalty)
