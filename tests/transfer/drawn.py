"""Weights that a name and a shape give, so that two programs have the same ones and none need be kept. NumPy alone."""

import zlib

import numpy as np


def array(name, shape):
    """Of the size that keeps activations near 1: variances positive, scales near 1, kernels by their fan-in."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    last, shape = name.replace("/", ".").rsplit(".", 1)[-1], tuple(shape)
    if last in ("running_var", "moving_variance"):
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    x = draw.normal(size=shape)
    if last == "gamma" or (last == "weight" and len(shape) == 1):
        return (1 + 0.1 * x).astype(np.float32)
    if len(shape) < 2:
        return (0.1 * x).astype(np.float32)
    fan_in = np.prod(shape[:-1]) if last == "kernel" else np.prod(shape[1:])
    return (x * np.sqrt(2 / max(fan_in, 1))).astype(np.float32)


def arrays(shapes):
    """{name: array} of {name: shape}."""
    return {name: array(name, shape) for name, shape in shapes.items()}


def images(count, high, wide):
    """[count, high, wide, 3]."""
    return np.random.default_rng(7).normal(size=(count, high, wide, 3)).astype(np.float32)
