"""Merging: several models of one start become one, without training or with a few steps after it."""

from mtl_jax.transfer.merging.averaging import average, greedy_soup, wise_ft
from mtl_jax.transfer.merging.heal import heal
from mtl_jax.transfer.merging.joined import side_by_side
from mtl_jax.transfer.merging.layer_inputs import make_grams
from mtl_jax.transfer.merging.methods import NAMES
from mtl_jax.transfer.merging.regmean import regmean, regmean_plus_plus
from mtl_jax.transfer.merging.runs import merge
from mtl_jax.transfer.merging.spectral import iso_c, tsv_m
from mtl_jax.transfer.merging.task_vectors import dare, task_arithmetic
from mtl_jax.transfer.merging.ties import ties
from mtl_jax.transfer.merging.wudi import wudi

__all__ = [
    "NAMES", "average", "dare", "greedy_soup", "heal", "iso_c", "make_grams", "merge", "regmean", "regmean_plus_plus",
    "side_by_side", "task_arithmetic", "ties", "tsv_m", "wise_ft", "wudi",
]  # fmt: skip
