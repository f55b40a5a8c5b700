"""Encoders on variables drawn in NumPy: compiling their initialisation takes far longer than running them."""

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import partition
from mtl_jax.encoders import base


def variables(encoder, x, dtype=np.float32, seed=0):
    """(params, state) of the shapes that initialisation on the first two rows gives."""
    draw, two = np.random.default_rng(seed), jax.tree.map(lambda v: v[:2], x)
    shapes = jax.eval_shape(lambda x: base.init_layers(base.layers(encoder), jax.random.key(0), x, "e")[:2], two)

    def leaf(path, shape):
        name = path.split("/")[-1]
        if name in ("mean", "var"):
            return np.full(shape.shape, float(name == "var"), dtype)
        if name in ("scale", "bias"):
            return ((name == "scale") + 0.1 * draw.normal(size=shape.shape)).astype(dtype)
        return (draw.normal(size=shape.shape) / np.sqrt(max(np.prod(shape.shape[:-1]), 1))).astype(dtype)

    return tuple(partition.unflatten({p: leaf(p, s) for p, s in partition.flatten(t).items()}, t) for t in shapes)


def features(encoder, params, state, x, train=False, seed=0):
    """(what the encoder gives, changed state); a sequence without its mask."""
    named = base.layers(encoder)
    y, new = base.apply_layers(named, params, state, x, train=train, key=jax.random.key(seed), prefix="e")
    return base.values_of(y), new


def run(encoder, x, train=False, seed=0):
    """`features` on drawn variables, compiled."""
    x = jax.tree.map(jnp.asarray, x)
    params, state = variables(encoder, x)
    return jax.jit(lambda p, s, x: features(encoder, p, s, x, train, seed))(params, state, x)
