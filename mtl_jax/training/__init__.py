"""Training: one compiled step, the loop around it, and the run that comes out."""

from mtl_jax.training.tables import options_for_table

__all__ = ["options_for_table"]
