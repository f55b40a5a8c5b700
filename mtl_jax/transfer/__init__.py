"""Transfer: what was learned is chosen, carried to new tasks, and merged."""

from mtl_jax.transfer import merging, ranking
from mtl_jax.transfer.adapt import adapt
from mtl_jax.transfer.merging import heal, merge
from mtl_jax.transfer.ranking import rank, recommend

__all__ = ["adapt", "heal", "merge", "merging", "rank", "ranking", "recommend"]
