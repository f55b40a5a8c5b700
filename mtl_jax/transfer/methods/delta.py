"""Differences to a frozen model: f(x; theta + delta), all of it, or with a gate per entry that learns to be zero."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADAPTER, ADDED, HEADS, Addition, Leaves, Method, Site

ALL = (r"(?!tasks/[^/]+/head/|shared/heads?/).*",)
TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1  # of the hard concrete distribution, Louizos et al. 2018, arXiv:1712.01312


@parts.recorded()
def delta(paths: str | Sequence[str] | None = None) -> Method:
    """The explicit difference: theta stays, and delta of the same shape, zero at first, trains.

    What was learned lies apart from what there was, as task vectors and penalties on the change need it.

    Source: Li, Grandvalet and Davoine, ICML 2018, arXiv:1802.01483, where weights decay
    to the start, as they do where delta decays.

    Args:
      paths: regexes of the parameters; None for all of the encoder's.
    """

    def init(key: Any, site: Site) -> Leaves:
        del key
        return {"delta": jnp.zeros(site.shape, jnp.float32)}

    adds = Addition(
        init, weights=lambda node, name, x: {name: node[name] + x["delta"]},
        targets=base.regexes("delta: paths", paths, ALL), takes=lambda site: True, what="parameter",
    )  # fmt: skip
    return Method(3e-4, (*ADDED, *HEADS), adds=adds)


def gate(log_alpha: Any) -> Any:
    """The hard concrete gate at its median draw: exactly 0 or 1 at the ends."""
    return jnp.clip(jax.nn.sigmoid(log_alpha) * (HIGH - LOW) + LOW, 0, 1)


def expected_open(log_alpha: Any) -> Any:
    """The probability that a gate is not 0."""
    return jax.nn.sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


@parts.recorded()
def diff_pruning(sparsity: float = 1e-3, start: float = 2.0, paths: str | Sequence[str] | None = None) -> Method:
    """A sparse difference: theta + z w, with a gate z per entry that a penalty on the number of open ones closes.

    Where it departs from the paper: gates are at the median of their hard concrete distribution, in training too, where
    the paper draws them; no second stage that fixes their share.

    Source: Guo, Rush and Kim, "Parameter-efficient transfer learning with diff pruning", ACL 2021, arXiv:2012.07463.

    Args:
      sparsity: factor on the expected share of open gates.
      start: first logarithm of a gate's odds; 2 is nearly open.
      paths: regexes of the parameters; None for all of the encoder's.
    """
    base.check_between("diff_pruning: sparsity", sparsity, 0, float("inf"))

    def init(key: Any, site: Site) -> Leaves:
        del key
        return {"delta": jnp.zeros(site.shape, jnp.float32), "gate": jnp.full(site.shape, float(start), jnp.float32)}

    def penalty(params: Leaves, before: Leaves, state: Any) -> Any:
        del before, state
        gates = [x for p, x in params.items() if f"/{ADAPTER}/" in p and p.endswith("/gate")]
        total = sum(x.size for x in gates)
        return sparsity * sum(expected_open(x).sum() for x in gates) / max(total, 1)

    adds = Addition(
        init, weights=lambda node, name, x: {name: node[name] + gate(x["gate"]) * x["delta"]},
        targets=base.regexes("diff_pruning: paths", paths, ALL), takes=lambda site: True, what="parameter",
    )  # fmt: skip
    return Method(
        3e-4, (*ADDED, *HEADS), adds=adds, penalty=penalty,
        factors=lambda paths, encoder: ((f".*/{ADAPTER}/.*/gate", 100.0),),
    )  # fmt: skip
