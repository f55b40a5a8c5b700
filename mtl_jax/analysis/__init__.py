"""Evidence: which method, which sharing, which tasks, and whether a network is the right model at all."""

from mtl_jax.analysis.trees import beside_trees

__all__ = ["beside_trees"]
