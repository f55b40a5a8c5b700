"""Encoders: what turns inputs into features. `NAMES` lists those that a config can name."""

from mtl_jax import parts
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.cnn import cnn
from mtl_jax.encoders.linear import linear
from mtl_jax.encoders.mlp import mlp
from mtl_jax.encoders.transformer import transformer

NAMES = {"linear": linear, "mlp": mlp, "cnn": cnn, "transformer": transformer}


def build(text: str, **extra) -> Encoder:
    """The encoder that `text` names, such as ``"mlp(features=(64, 64))"``."""
    return parts.build(text, NAMES, "encoder", **extra)


__all__ = ["NAMES", "Encoder", "build", "cnn", "linear", "mlp", "transformer"]
