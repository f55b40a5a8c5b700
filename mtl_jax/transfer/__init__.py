"""Transfer: what was learned is carried to new tasks."""

from mtl_jax.transfer.adapt import adapt
from mtl_jax.transfer.loading import KEEP, DoesNotFit, LoadReport, load_parameters
from mtl_jax.transfer.pretrained import Pretrained, from_pretrained
from mtl_jax.transfer.starting import start_from

__all__ = [
    "KEEP",
    "DoesNotFit",
    "LoadReport",
    "Pretrained",
    "adapt",
    "from_pretrained",
    "load_parameters",
    "start_from",
]
