"""Encoders: what turns inputs into features. `NAMES` lists those that a config can name."""

from mtl_jax import parts
from mtl_jax.encoders.augmented import augmented as augmented
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.cnn import cnn as cnn
from mtl_jax.encoders.conv1d import conv1d as conv1d
from mtl_jax.encoders.efficientnet_lite import efficientnet_lite as efficientnet_lite
from mtl_jax.encoders.for_table import for_table as for_table
from mtl_jax.encoders.foreign.from_module import from_module as from_module
from mtl_jax.encoders.linear import linear as linear
from mtl_jax.encoders.mlp import mlp as mlp
from mtl_jax.encoders.multimodal import multimodal as multimodal
from mtl_jax.encoders.resnet import resnet as resnet
from mtl_jax.encoders.rnn import rnn as rnn
from mtl_jax.encoders.tabm import tabm as tabm
from mtl_jax.encoders.tabular import tabular as tabular
from mtl_jax.encoders.transformer import transformer as transformer
from mtl_jax.encoders.unet import unet as unet
from mtl_jax.encoders.vgg import vgg as vgg
from mtl_jax.encoders.vit import vit as vit

# All but what the data chooses, and what is made of objects.
OTHERS = (for_table, from_module)
NAMES = {name: function for name, function in parts.returning(Encoder, globals()).items() if function not in OTHERS}


def build(text: str, **extra) -> Encoder:
    """The encoder that `text` names, such as ``"mlp(features=(64, 64))"``."""
    if isinstance(text, str) and text.split("(")[0].strip() == "for_table":
        raise ValueError(f"encoder {text!r} is chosen by the data; call mtl.encoders.for_table(data)")
    if isinstance(text, str) and text.split("(")[0].strip() == "from_module":
        raise ValueError("encoder 'from_module' is made of a Python object; call mtl.encoders.from_module(module)")
    return parts.build(text, NAMES, "encoder", **extra)


__all__ = ["NAMES", "Encoder", "build", "for_table", "from_module", *NAMES]
