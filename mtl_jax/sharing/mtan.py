"""Multi-task attention network (MTAN; Liu, Johns and Davison, CVPR 2019, arXiv:1803.10704)."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mtl_jax.batch import PerTask
from mtl_jax.encoders import layers
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.neighbours import Neighbours
from mtl_jax.sharing.positions import at_positions_of
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task


class Carry(nn.Module):
    """f: what a task kept after the stage before, at the positions and in the width of the stage's features."""

    norm: str

    @nn.compact
    def __call__(self, read: Any, *, train: bool) -> Array:
        x = read["x"]
        before = with_values(x, at_positions_of(read["before"], x))
        # A bias in front of batch normalisation has no effect, and its gradient is only noise.
        values = Neighbours(values_of(x).shape[-1], bias=self.norm != "batch", name="map")(before, train=train)
        return layers.Finish(self.norm, "relu", name="finish")(values, train=train)


class Attention(nn.Module):
    """x * sigmoid(h(g([x; carried]))): maps channel by channel; g with norm and ReLU, h with norm."""

    norm: str

    @nn.compact
    def __call__(self, read: Any, *, train: bool) -> Any:
        values = values_of(read["x"])
        dense = functools.partial(nn.Dense, values.shape[-1], use_bias=self.norm != "batch", dtype=values.dtype)
        joined = jnp.concatenate([values, read["carried"]], -1) if "carried" in read else values
        inner = layers.Finish(self.norm, "relu", name="inner_finish")(dense(name="inner")(joined), train=train)
        mask = layers.normalise(dense(name="mask")(inner), self.norm, train=train, name="mask_norm")
        return with_values(read["x"], values * nn.sigmoid(mask))


@architecture(
    paper="MTAN, Liu, Johns and Davison, CVPR 2019, arXiv:1803.10704",
    when="dense predictions of one image, many tasks on one trunk",
)
def mtan(encoder: Encoder, tasks: Sequence[Task], norm: str = "batch") -> MultiTaskModel:
    """One trunk; after each stage every task masks its features softly, and reads the last ones it kept.

    A task's mask sees the stage's features and f of what the task kept after the stage before. f is the same for all
    tasks, ``shared/carry``: 3 x 3 over images, three wide over sequences, a dense map of vectors; what a task kept is
    resampled first. The masks' maps are under ``tasks/<t>/attention``; all statistics are each task's own.

    Where it departs from the paper: stages are not split as its blocks are, so that mask and masked features come from
    the stage's one output. The paper has images only.

    Source: MTAN, Liu, Johns and Davison, CVPR 2019, arXiv:1803.10704.

    Args:
      encoder: the trunk; vectors, sequences or images between stages.
      tasks: on common inputs, or each on its own.
      norm: "batch" as in the paper, "layer" or "none".
    """
    layers.check(1, norm, "relu", 0.0, "mtan")
    pool = [("pool", encoder.pool)] if encoder.pool is not None else []

    def attend(at: Any, x: Any, before: Any, name: str) -> Any:
        """What a task keeps of a stage's features `x`."""
        read = {"x": x}
        if before is not None:
            read["carried"] = at([(name, Carry(norm))], "shared/carry", {"x": x, "before": before})
        return at([(name, Attention(norm))], "own/attention", read)

    def walk(at: Any, x: Any) -> PerTask:
        kept = None
        for i, stage in enumerate(encoder.stages):
            x = at([(f"stage_{i}", stage)], "shared/encoder", x)
            kept = at.each(functools.partial(attend, name=f"stage_{i}"), x, kept)
        return at.each(lambda at, x: at(pool, "shared/encoder", x), kept)

    return walked("mtan", encoder, tasks, walk)
