"""Choosing what to carry over: candidates are scored by their features of the target, and the best are fine-tuned."""

from mtl_jax.transfer.ranking.candidates import see
from mtl_jax.transfer.ranking.gbc import gbc
from mtl_jax.transfer.ranking.h_score import h_score
from mtl_jax.transfer.ranking.leep import leep, nce
from mtl_jax.transfer.ranking.log_me import log_me
from mtl_jax.transfer.ranking.nearest import knn
from mtl_jax.transfer.ranking.nleep import nleep
from mtl_jax.transfer.ranking.parc import parc
from mtl_jax.transfer.ranking.rank import rank
from mtl_jax.transfer.ranking.read import one_hot
from mtl_jax.transfer.ranking.recommend import Recommendation, recommend
from mtl_jax.transfer.ranking.result import Ranking
from mtl_jax.transfer.ranking.ridge import ridge
from mtl_jax.transfer.ranking.scores import NAMES
from mtl_jax.transfer.ranking.trans_rate import trans_rate

__all__ = [
    "NAMES", "Ranking", "Recommendation", "gbc", "h_score", "knn", "leep", "log_me", "nce", "nleep", "one_hot", "parc",
    "rank", "recommend", "ridge", "see", "trans_rate",
]  # fmt: skip
