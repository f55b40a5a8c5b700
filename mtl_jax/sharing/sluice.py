"""Sluice networks (Ruder et al., AAAI 2019, arXiv:1705.08142)."""

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
from mtl_jax.sharing.task_columns import Reading, Unit, mixed_columns, own_and_others
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

    def start(key: Array, name: str, x: Float[Array, "task batch ... width"]) -> tuple[Array, dict]:
        if x.shape[-1] % subspaces:
            raise ValueError(
                f"sluice: {name} puts out {x.shape[1:]}, whose width {x.shape[-1]} does not divide into "
                f"subspaces={subspaces} equal parts"
            )
        return first.reshape(count, subspaces, count, subspaces), {}

    def apply(
        alpha: Array, state: dict, x: Float[Array, "task batch ... width"], on: bool
    ) -> tuple[Float[Array, "task batch ... width"], dict]:
        split = x.reshape(*x.shape[:-1], subspaces, -1)
        return jnp.einsum("tisj,s...jw->t...iw", alpha.astype(x.dtype), split).reshape(x.shape), {}

    def map_of(index: int) -> str:
        return f"stage_{index}"

    def start_reading(key: Array, behind: list) -> dict[str, Any]:
        widths = [values_of(x).shape[-1] for x in behind]
        draw = jax.nn.initializers.lecun_normal()
        key = [named_key(key, map_of(i)) for i in range(depth)]
        maps = {map_of(i): draw(key[i], (w, widths[-1])) for i, w in enumerate(widths) if w != widths[-1]}
        return {"beta": first_beta, "maps": {i: jnp.repeat(m[None], count, 0) for i, m in maps.items()}}

    def read(params: Any, behind: list) -> Any:
        def one(beta: Array, maps: dict[str, Array], behind: list) -> Array:
            total = 0
            for i, x in enumerate(behind):
                values = at_positions_of(x, behind[-1])
                if map_of(i) in maps:
                    values = values @ maps[map_of(i)].astype(values.dtype)
                total = total + beta[i].astype(values.dtype) * values
            return total

        return with_values(behind[-1], jax.vmap(one)(params["beta"], params["maps"], behind))

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

    return mixed_columns(encoder, tasks, "sluice", Unit(start, apply), Reading(start_reading, read), penalty)
