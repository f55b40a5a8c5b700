"""Transfer: what was learned is carried to new tasks."""

from mtl_jax.transfer import methods
from mtl_jax.transfer.adapt import adapt
from mtl_jax.transfer.adapted_run import load_adapter, merge, save_adapter
from mtl_jax.transfer.bank import Bank
from mtl_jax.transfer.continual import forgetting, join, rehearsal
from mtl_jax.transfer.fine_tune import fine_tune

__all__ = ["Bank", "adapt", "fine_tune", "forgetting", "join", "load_adapter", "merge", "methods", "rehearsal",
           "save_adapter"]  # fmt: skip
