"""Mixup and CutMix inside the model: the inputs are mixed on the device, and labels stay as they are.

Both are defined by a loss at a mixed input with two labels, weighted l and 1 - l. Over the draws of pairs that is the
same, in expectation, as one label at an input mixed with a suitably drawn l (Carratino et al. 2020, arXiv:2006.06049,
theorem 1: l from Beta(alpha + 1, alpha)); so it holds for every kind of task, for missing labels and for weights, and a
step costs what it costs without.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders.preparation import as_numbers
from mtl_jax.keys import TaskKey, named_key
from mtl_jax.model import MultiTaskModel
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import EVERYTHING, Method


def around(model: MultiTaskModel, mix: Any, name: str) -> MultiTaskModel:
    """The model, whose inputs are mixed in training passes, that is where there is a key."""

    def encode(
        variables: Any, batch: Batch, *, train: Any, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        if rng is not None and train is not False:
            key = named_key(rng.key if isinstance(rng, TaskKey) else rng, name)
            own = isinstance(batch.inputs, PerTask)
            mixed = {t: mix(key, x) for t, x in batch.inputs.items()} if own else mix(key, batch.inputs)
            batch = batch._replace(inputs=PerTask(mixed) if own else mixed)
        return model.encode(variables, batch, train=train, rng=rng, tasks=tasks)

    return model._replace(encode=encode)


def mixed_up(key: Key[Array, ""], inputs: Any, alpha: float) -> Any:
    """l x + (1 - l) x' of every row with another one."""
    leaves = jax.tree.leaves(inputs)
    if len(leaves) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise ValueError("mixup: it adds inputs up, so they must be one array of numbers; tokens and dicts are none")
    rows = leaves[0].shape[0]
    draw, order = jax.random.split(key)
    share = jax.random.beta(draw, alpha + 1, alpha, (rows,)).astype(leaves[0].dtype)
    partner = jax.random.permutation(order, rows)

    def mix(x: Float[Array, "row ..."]) -> Float[Array, "row ..."]:
        part = share.reshape(-1, *(1,) * (x.ndim - 1))
        return part * x + (1 - part) * x[partner]

    return jax.tree.map(mix, inputs)


def cut(key: Key[Array, ""], images: Any, alpha: float) -> Any:
    """Every image with a box of another one, or the other one with a box of it, as the label that it has wants."""
    if not hasattr(images, "ndim") or images.ndim != 4:
        raise ValueError("cutmix: it pastes boxes of images, so inputs must be images [N, H, W, C]")
    rows, high, wide = images.shape[:3]
    keys = jax.random.split(key, 5)
    side = jnp.sqrt(1 - jax.random.beta(keys[0], alpha, alpha, (rows,)))
    centre = [jax.random.uniform(k, (rows,)) * n for k, n in ((keys[1], high), (keys[2], wide))]
    inside = jnp.ones((rows, high, wide), bool)
    for axis, (middle, n) in enumerate(zip(centre, (high, wide), strict=True)):
        at = jnp.arange(n) + 0.5
        near = jnp.abs(at[None] - middle[:, None]) < (side * n / 2)[:, None]
        inside = inside & (near[:, :, None] if axis == 0 else near[:, None, :])
    share = 1 - inside.mean((1, 2))  # what is left of the image that is pasted into
    partner = jax.random.permutation(keys[3], rows)
    # With probability `share` the label is that of the image around the box, else that of the image in the box.
    outer = jax.random.uniform(keys[4], (rows,)) < share
    own = inside != outer[:, None, None]
    return jnp.where(own[..., None], images, images[partner])


@parts.recorded()
def mixup(alpha: float = 0.2) -> Method:
    """Full fine-tuning on inputs that are mixed by pairs.

    Source: Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, arXiv:1710.09412.

    Args:
      alpha: of the Beta distribution.
    """
    base.check_between("mixup: alpha", alpha, 0, float("inf"), open_low=True)

    def mixing(model: MultiTaskModel, plain: MultiTaskModel) -> MultiTaskModel:
        # What makes bytes numbers in 0..1 takes such numbers, too.
        reads_bytes = plain.encoder is not None and plain.encoder.prepare is not None

        def mix(key: Key[Array, ""], x: Any) -> Any:
            return mixed_up(key, jax.tree.map(as_numbers, x) if reads_bytes else x, alpha)

        return around(model, mix, "mixup")

    return Method(3e-4, EVERYTHING, around=mixing)


@parts.recorded()
def cutmix(alpha: float = 1.0) -> Method:
    """Full fine-tuning on images into which boxes of others are pasted.

    Source: Yun et al., "CutMix", ICCV 2019, arXiv:1905.04899.

    Args:
      alpha: of the Beta distribution.
    """
    base.check_between("cutmix: alpha", alpha, 0, float("inf"), open_low=True)
    return Method(3e-4, EVERYTHING, around=lambda m, _: around(m, lambda k, x: cut(k, x, alpha), "cutmix"))
