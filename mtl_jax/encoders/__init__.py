"""Encoders: what turns inputs into features. `NAMES` lists those that a config can name."""

from mtl_jax import parts
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.cnn import cnn
from mtl_jax.encoders.conv1d import conv1d
from mtl_jax.encoders.efficientnet_lite import efficientnet_lite
from mtl_jax.encoders.for_table import for_table
from mtl_jax.encoders.linear import linear
from mtl_jax.encoders.mlp import mlp
from mtl_jax.encoders.multimodal import multimodal
from mtl_jax.encoders.resnet import resnet
from mtl_jax.encoders.rnn import rnn
from mtl_jax.encoders.tabm import tabm
from mtl_jax.encoders.tabular import tabular
from mtl_jax.encoders.transformer import transformer
from mtl_jax.encoders.unet import unet
from mtl_jax.encoders.vgg import vgg
from mtl_jax.encoders.vit import vit

NAMES = {
    "linear": linear,
    "mlp": mlp,
    "tabular": tabular,
    "tabm": tabm,
    "cnn": cnn,
    "resnet": resnet,
    "efficientnet_lite": efficientnet_lite,
    "vgg": vgg,
    "vit": vit,
    "unet": unet,
    "rnn": rnn,
    "conv1d": conv1d,
    "transformer": transformer,
    "multimodal": multimodal,
}


def build(text: str, **extra) -> Encoder:
    """The encoder that `text` names, such as ``"mlp(features=(64, 64))"``."""
    if isinstance(text, str) and text.split("(")[0].strip() == "for_table":
        raise ValueError(f"encoder {text!r} is chosen by the data; call mtl.encoders.for_table(data)")
    return parts.build(text, NAMES, "encoder", **extra)


__all__ = [
    "NAMES",
    "Encoder",
    "build",
    "cnn",
    "conv1d",
    "efficientnet_lite",
    "for_table",
    "linear",
    "mlp",
    "multimodal",
    "resnet",
    "rnn",
    "tabm",
    "tabular",
    "transformer",
    "unet",
    "vgg",
    "vit",
]
