"""Transfer: what was learned is chosen, carried to new tasks, and merged."""

from mtl_jax.transfer import merging, ranking
from mtl_jax.transfer.adapt import adapt
from mtl_jax.transfer.loading import KEEP, DoesNotFit, LoadReport, load_parameters
from mtl_jax.transfer.merging import heal, merge
from mtl_jax.transfer.pretrained import Pretrained, from_pretrained
from mtl_jax.transfer.ranking import rank, recommend
from mtl_jax.transfer.starting import start_from

__all__ = [
    "KEEP", "DoesNotFit", "LoadReport", "Pretrained", "adapt", "from_pretrained", "heal", "load_parameters", "merge",
    "merging", "rank", "ranking", "recommend", "start_from",
]  # fmt: skip
