"""Transfer: what was learned is chosen, carried to new tasks, and merged."""

from mtl_jax.transfer import evaluation, merging, methods, ranking
from mtl_jax.transfer.adapt import adapt
from mtl_jax.transfer.adapted_run import load_adapter, merge_adapter, save_adapter
from mtl_jax.transfer.bank import Bank
from mtl_jax.transfer.continual import forgetting, join, rehearsal
from mtl_jax.transfer.evaluation import evaluate, few_shot
from mtl_jax.transfer.fine_tune import fine_tune
from mtl_jax.transfer.loading import KEEP, DoesNotFit, LoadReport, load_parameters
from mtl_jax.transfer.merging import heal, merge
from mtl_jax.transfer.pretrained import Pretrained, from_pretrained
from mtl_jax.transfer.ranking import rank, recommend
from mtl_jax.transfer.starting import start_from

__all__ = [
    "KEEP", "Bank", "DoesNotFit", "LoadReport", "Pretrained", "adapt", "evaluate", "evaluation", "few_shot",
    "fine_tune", "forgetting", "from_pretrained", "heal", "join", "load_adapter", "load_parameters", "merge",
    "merge_adapter", "merging", "methods", "rank", "ranking", "recommend", "rehearsal", "save_adapter", "start_from",
]  # fmt: skip
