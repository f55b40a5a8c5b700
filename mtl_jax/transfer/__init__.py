"""Transfer: what was learned is carried to new tasks."""

from mtl_jax.transfer import methods
from mtl_jax.transfer.adapt import adapt

__all__ = ["adapt", "methods"]
