"""Transfer: what was learned is carried to new tasks."""

from mtl_jax.transfer import methods
from mtl_jax.transfer.adapt import adapt
from mtl_jax.transfer.fine_tune import fine_tune

__all__ = ["adapt", "fine_tune", "methods"]
